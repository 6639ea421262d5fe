#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

/// Instruction-set levels and the one place that chooses between them.
///
/// A kernel is a function template over Isa whose explicit specializations live in NAME.isa.cpp, which CMake compiles
/// once per level (cmake/Isa.cmake):
///
///     // reduce.h
///     template <Isa I> float amax(const float* x, size_t n);
///     // reduce.isa.cpp: only intrinsics and plain loops; no STL, no inline functions that could be emitted (style
///     rule:
///     // a weak symbol compiled with AVX-512 could be the one that the linker keeps for everybody)
///     template <> float amax<kIsa>(const float* x, size_t n) { ... }
///     // caller, outside loops
///     with_isa([&]<Isa I> { return amax<I>(x, n); });
///     // or, for a kernel with levels of its own
///     with_isa<IsaList<Isa::amx, Isa::avx512vnni, Isa::avx2, Isa::scalar>>(...)
namespace mezzotint::kernel {

///
/// Every kernel has the base levels scalar, avx2 and avx512. The others are narrower: they add instructions that only
/// matrix products and a few codecs use, and a kernel has them where it gains (NAME.isa_<level>.cpp). A level higher in
/// the order never lacks what a lower one of the same kernel has, except that machines with avx512 may lack avxvnni.
enum class Isa : uint8_t {
  scalar,
  avx2,
  avxvnni,  ///< 256-bit VNNI on processors without AVX-512
  avx512,
  avx512vnni,
  avx512bf16,  ///< also VNNI and VBMI
  amx,         ///< AMX-INT8 and AMX-BF16 beside avx512bf16
};

/// CPU features a level may need. A machine may have one without another.
enum Feature : uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kF16c = 1u << 2,
  kBmi2 = 1u << 3,
  kAvx512f = 1u << 4,
  kAvx512bw = 1u << 5,
  kAvx512dq = 1u << 6,
  kAvx512vl = 1u << 7,
  kAvxVnni = 1u << 8,
  kAvx512vnni = 1u << 9,
  kAvx512vbmi = 1u << 10,
  kAvx512bf16 = 1u << 11,
  kAmx = 1u << 12,  ///< tile, int8 and bf16, and the operating system lets this process use them
};

struct IsaFacts {
  Isa isa;
  std::string_view name;  ///< as in MEZZOTINT_ISA and cmake/Isa.cmake
  uint32_t features;      ///< all of these are needed
};

/// Every level, lowest first. A cap admits the levels up to and including it.
std::span<const IsaFacts> all_isas();
/// The levels that every kernel is compiled for, lowest first.
std::span<const Isa> base_isas();
std::string_view name(Isa isa);
std::optional<Isa> isa_from_name(std::string_view name);

/// Features of this machine, as the CPU and the kernel report them.
uint32_t machine_features();
/// Whether this machine can run the level at all, whatever the cap.
bool machine_has(Isa isa);
/// Whether with_isa may choose the level now: the machine has it and neither MEZZOTINT_ISA nor a ScopedIsaCap forbids
/// it. Throws Error "unknown-isa" if MEZZOTINT_ISA names no level.
bool enabled(Isa isa);

/// Caps the level on the current thread until destroyed (tests and benchmarks).
class ScopedIsaCap {
 public:
  explicit ScopedIsaCap(Isa cap);
  ~ScopedIsaCap();
  ScopedIsaCap(const ScopedIsaCap&) = delete;
  ScopedIsaCap& operator=(const ScopedIsaCap&) = delete;

 private:
  Isa previous_;
};

/// The levels a kernel is compiled for, best first; the last must run everywhere.
template <Isa... Levels>
struct IsaList {};
#if defined(__x86_64__)
using BaseIsas = IsaList<Isa::avx512, Isa::avx2, Isa::scalar>;
using EveryIsa = IsaList<Isa::amx, Isa::avx512bf16, Isa::avx512vnni, Isa::avx512, Isa::avxvnni, Isa::avx2, Isa::scalar>;
#else
using BaseIsas = IsaList<Isa::scalar>;
using EveryIsa = BaseIsas;
#endif

namespace detail {
template <class F, Isa Last>
decltype(auto) choose(F&& f, IsaList<Last>) {
  return f.template operator()<Last>();
}
template <class F, Isa First, Isa Second, Isa... Rest>
decltype(auto) choose(F&& f, IsaList<First, Second, Rest...>) {
  if (enabled(First)) return f.template operator()<First>();
  return choose(static_cast<F&&>(f), IsaList<Second, Rest...>{});
}
}  // namespace detail

/// Calls f.operator()<I>() with the best enabled level of the list; a missing level falls down to the next.
template <class List = BaseIsas, class F>
decltype(auto) with_isa(F&& f) {
  return detail::choose(static_cast<F&&>(f), List{});
}

/// The highest level enabled now.
Isa active_isa();
/// What the compiler of the chosen object file was told: read from its own macros inside an ISA file, so that a test
/// can prove that the forced level is the one that runs.
Isa compiled_isa();

}  // namespace mezzotint::kernel
