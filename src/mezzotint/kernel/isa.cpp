#include "mezzotint/kernel/isa.h"

#include <cassert>
#include <cstdlib>
#include <string>

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/isa_probe.h"

namespace mezzotint::kernel {
namespace {

constexpr uint32_t kAvx2Set = kAvx2 | kFma | kF16c | kBmi2;
constexpr uint32_t kAvx512Set = kAvx2Set | kAvx512f | kAvx512bw | kAvx512dq | kAvx512vl;

constexpr IsaFacts kIsas[] = {
    {Isa::scalar, "scalar", 0},
    {Isa::avx2, "avx2", kAvx2Set},
    {Isa::avx512, "avx512", kAvx512Set},
};
constexpr Isa kHighest = Isa::avx512;

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
  return with_isa([]<Isa I> { return I; });
}

Isa compiled_isa() {
  return with_isa([]<Isa I> { return probe<I>(); });
}

}  // namespace mezzotint::kernel
