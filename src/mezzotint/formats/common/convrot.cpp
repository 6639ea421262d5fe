#include "mezzotint/formats/common/convrot.h"

#include <cassert>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats::convrot {

std::string refuse(int64_t cols, int64_t group) {
  if (cols % group == 0) return "";
  return "K = " + std::to_string(cols) + " is not a multiple of " + std::string(kGroup) + " = " + std::to_string(group);
}

void transform(const Layout& layout, float* rows, int64_t count, bool) {
  kernel::rotate_convrot(rows, count * layout.cols, group(layout.options));
}

std::vector<float> column_weights(const Layout& layout, const ChooseOptions& choose) {
  std::vector<float> weights(choose.column_weight.begin(), choose.column_weight.end());
  assert(weights.empty() || static_cast<int64_t>(weights.size()) == layout.cols);
  const auto size = static_cast<size_t>(group(layout.options));
  for (size_t first = 0; first < weights.size(); first += size) {
    double sum = 0;
    for (size_t i = first; i < first + size; ++i) sum += static_cast<double>(weights[i]);
    for (size_t i = first; i < first + size; ++i) weights[i] = static_cast<float>(sum / static_cast<double>(size));
  }
  return weights;
}

std::optional<int64_t> marker_group(const StoredLayer& layer) {
  const int64_t group = marker_integer(layer, kGroup, 256);
  return kernel::is_convrot_group(group) ? std::optional(group) : std::nullopt;
}

}  // namespace mezzotint::formats::convrot
