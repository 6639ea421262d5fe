#include "mezzotint/convert/smoothing/rescaled.h"

#include <cmath>
#include <cstddef>

#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/smoothing/norms.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

std::vector<float> values_of(const Model& model, size_t tensor) {
  const io::TensorInfo& info = model.source().tensors()[tensor];
  if (info.shape.size() != 1 || !facts(info.dtype).is_float || !checkpoint::is_readable(info.dtype)) return {};
  const checkpoint::WeightValues values(model, tensor);
  std::vector<float> out(values.elements());
  std::vector<std::byte> bytes;
  values.read(0, values.elements(), out.data(), bytes);
  return out;
}

/// What a norm was multiplied by; empty where that is not all powers of two, or all 1.
std::vector<float> factors_between(const std::vector<float>& before, const std::vector<float>& after) {
  std::vector<float> factors(before.size(), 1.0f);
  if (before.size() != after.size()) return {};
  bool changed = false;
  for (size_t j = 0; j < before.size(); ++j) {
    if (before[j] == after[j]) continue;
    int exponent = 0;
    factors[j] = after[j] / before[j];
    if (!std::isfinite(factors[j]) || std::frexp(factors[j], &exponent) != 0.5f) return {};
    changed = true;
  }
  return changed ? factors : std::vector<float>();
}

}  // namespace

std::map<std::string, std::vector<float>, std::less<>> rescaled_tensors(const Model& original, const Model& converted) {
  std::map<std::string, std::vector<float>, std::less<>> rescaled;
  const auto& tensors = original.source().tensors();
  for (const Component& component : find_components(tensors)) {
    const Detection found = detect(tensors, component.prefix);
    for (const Norm& norm : find_norms(tensors, found.prefix, *found.preset)) {
      std::vector<float> factors;
      for (const size_t part : norm.parts) {
        const size_t other = converted.source().find(tensors[part].name);
        if (other == io::Source::npos) break;
        const auto before = values_of(original, part), after = values_of(converted, other);
        if (part == norm.parts[0]) factors = factors_between(before, after);
        for (size_t j = 0; j < factors.size(); ++j)
          if (before.size() != factors.size() || after.size() != factors.size() || before[j] * factors[j] != after[j])
            factors.clear();
      }
      if (factors.empty()) continue;
      std::vector<float> inverse;
      for (const float factor : factors) inverse.push_back(1 / factor);
      for (const size_t reader : norm.readers) rescaled.emplace(tensors[reader].name, factors);
      for (const size_t part : norm.parts) rescaled.emplace(tensors[part].name, inverse);
    }
  }
  return rescaled;
}

}  // namespace mezzotint::convert
