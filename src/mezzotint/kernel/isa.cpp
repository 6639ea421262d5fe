#include "mezzotint/kernel/isa.h"

#include <cassert>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/isa_probe.h"

namespace mezzotint::kernel {
namespace {

constexpr uint32_t kAvx2Set = kAvx2 | kFma | kF16c | kBmi2;
constexpr uint32_t kAvx512Set = kAvx2Set | kAvx512f | kAvx512bw | kAvx512dq | kAvx512vl;
constexpr uint32_t kBf16Set = kAvx512Set | kAvx512vnni | kAvx512vbmi | kAvx512bf16;

constexpr IsaFacts kIsas[] = {
    {Isa::scalar, "scalar", 0},
    {Isa::avx2, "avx2", kAvx2Set},
    {Isa::avxvnni, "avxvnni", kAvx2Set | kAvxVnni},
    {Isa::avx512, "avx512", kAvx512Set},
    {Isa::avx512vnni, "avx512vnni", kAvx512Set | kAvx512vnni},
    {Isa::avx512bf16, "avx512bf16", kBf16Set},
    {Isa::amx, "amx", kBf16Set | kAmx},
};
constexpr Isa kHighest = Isa::amx;

#if defined(__x86_64__)
constexpr Isa kBaseIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512};

/// Linux hands out the tile registers on request only, once per process.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#else
constexpr Isa kBaseIsas[] = {Isa::scalar};
#endif

uint32_t detect() {
  uint32_t found = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const auto add = [&](bool has, Feature feature) {
    if (has) found |= feature;
  };
  add(__builtin_cpu_supports("avx2"), kAvx2);
  add(__builtin_cpu_supports("fma"), kFma);
  add(__builtin_cpu_supports("f16c"), kF16c);
  add(__builtin_cpu_supports("bmi2"), kBmi2);
  add(__builtin_cpu_supports("avx512f"), kAvx512f);
  add(__builtin_cpu_supports("avx512bw"), kAvx512bw);
  add(__builtin_cpu_supports("avx512dq"), kAvx512dq);
  add(__builtin_cpu_supports("avx512vl"), kAvx512vl);
  // What follows needs no state of its own beyond that of AVX2 and AVX-512, which the calls above have checked; g++ 12
  // has no names for all of it.
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    const uint32_t leaves = a;
    add((c >> 1 & 1) && (found & kAvx512f), kAvx512vbmi);
    add((c >> 11 & 1) && (found & kAvx512f), kAvx512vnni);
    const bool tiles = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);
    add(tiles && request_tiles(), kAmx);
    if (leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      add((a >> 4 & 1) && (found & kAvx2), kAvxVnni);
      add((a >> 5 & 1) && (found & kAvx512f), kAvx512bf16);
    }
  }
#endif
  return found;
}

Isa cap_from_environment() {
  const char* value = std::getenv("MEZZOTINT_ISA");
  if (value == nullptr || *value == '\0') return kHighest;
  if (const auto isa = isa_from_name(value)) return *isa;
  std::string names;
  for (const auto& row : kIsas) names += (names.empty() ? "" : ", ") + std::string(row.name);
  throw Error({.name = "unknown-isa",
               .problem = "MEZZOTINT_ISA names no instruction-set level",
               .expected = names,
               .found = value,
               .advice = "Unset it or name one of these."});
}

thread_local Isa thread_cap = kHighest;

}  // namespace

std::span<const IsaFacts> all_isas() {
  return kIsas;
}

std::span<const Isa> base_isas() {
  return kBaseIsas;
}

std::string_view name(Isa isa) {
  return kIsas[static_cast<size_t>(isa)].name;
}

std::optional<Isa> isa_from_name(std::string_view name) {
  for (const auto& row : kIsas)
    if (row.name == name) return row.isa;
  return std::nullopt;
}

uint32_t machine_features() {
  static const uint32_t features = detect();
  return features;
}

bool machine_has(Isa isa) {
  const uint32_t needed = kIsas[static_cast<size_t>(isa)].features;
  return (machine_features() & needed) == needed;
}

bool enabled(Isa isa) {
  static const Isa environment_cap = cap_from_environment();
  return isa <= environment_cap && isa <= thread_cap && machine_has(isa);
}

ScopedIsaCap::ScopedIsaCap(Isa cap) : previous_(thread_cap) {
  thread_cap = cap;
}
ScopedIsaCap::~ScopedIsaCap() {
  thread_cap = previous_;
}

Isa active_isa() {
  return with_isa<EveryIsa>([]<Isa I> { return I; });
}

Isa compiled_isa() {
  return with_isa<EveryIsa>([]<Isa I> { return probe<I>(); });
}

}  // namespace mezzotint::kernel
