#include "mezzotint/convert/options.h"

namespace mezzotint::convert {

std::string_view name(Bf16Compute mode) {
  constexpr std::string_view names[] = {"auto", "on", "off"};
  return names[static_cast<size_t>(mode)];
}

std::optional<Bf16Compute> parse_bf16_compute(std::string_view text) {
  for (const Bf16Compute mode : {Bf16Compute::automatic, Bf16Compute::on, Bf16Compute::off})
    if (name(mode) == text) return mode;
  return std::nullopt;
}

std::string_view name(MergeRounding mode) {
  constexpr std::string_view names[] = {"feedback", "nearest", "stochastic"};
  return names[static_cast<size_t>(mode)];
}

std::optional<MergeRounding> parse_merge_rounding(std::string_view text) {
  for (const MergeRounding mode : {MergeRounding::feedback, MergeRounding::nearest, MergeRounding::stochastic})
    if (name(mode) == text) return mode;
  return std::nullopt;
}

}  // namespace mezzotint::convert
