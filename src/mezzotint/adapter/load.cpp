#include <memory>
#include <string>

#include "mezzotint/adapter/dora.h"
#include "mezzotint/adapter/enlarge.h"
#include "mezzotint/adapter/file.h"
#include "mezzotint/base/error.h"

namespace mezzotint::adapter {

std::string misfit(const Patch& patch, const Shape& weight) {
  Parts parts = patch.parts;
  if (!patch.enlarged.empty())
    parts.parts.push_back({"reshape_weight", 0, {static_cast<int64_t>(patch.enlarged.size())}});
  std::string reason = patch.algorithm->misfit(parts, weight);
  if (!reason.empty() || !patch.magnitude) return reason;
  return dora_axis(patch.magnitude->shape, patch.peft_magnitude, weight).misfit;
}

Outlook outlook(const AdapterFile& file, const Patch& patch, const Shape& weight) {
  Outlook outlook{.shape = patch.enlarged.empty() ? weight : patch.enlarged};
  if (const Part* part = patch.parts.find("reshape_weight")) {
    outlook.shape = enlarged_shape(file.read(*part), weight, matrix_rows(patch.parts.shape("lora_up")),
                                   matrix_cols(patch.parts.shape("lora_down")), patch.target);
  }
  const Algorithm& algorithm = *patch.algorithm;
  if (algorithm.granule) outlook.granule = algorithm.granule(patch.parts, weight);
  if (!patch.magnitude) {
    if (algorithm.rank) outlook.rank = algorithm.rank(patch.parts);
  } else if (dora_axis(patch.magnitude->shape, patch.peft_magnitude, weight).axis == DoraAxis::columns) {
    outlook.granule = matrix_rows(outlook.shape);
  }
  return outlook;
}

std::unique_ptr<const Effect> load(const AdapterFile& file, const Patch& patch, const Shape& weight) {
  const std::string reason = misfit(patch, weight);
  if (!reason.empty()) {
    throw Error({.name = "adapter-shape",
                 .problem = reason,
                 .file = file.source().files().front().string(),
                 .tensor = patch.target});
  }
  std::unique_ptr<const Effect> effect = patch.algorithm->make(file.read(patch), weight);
  if (!patch.magnitude) return effect;
  const DoraFit fit = dora_axis(patch.magnitude->shape, patch.peft_magnitude, weight);
  return with_magnitude(std::move(effect), file.read(*patch.magnitude), fit.axis);
}

}  // namespace mezzotint::adapter
