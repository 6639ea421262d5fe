#pragma once
#include <memory>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/plan.h"

/// Norms in front of layers: what a layer's input is divided by, the norm's weight (and bias) can be divided by
/// instead, as in SmoothQuant (Xiao et al. 2023), section 4.2. Every layer that reads the norm then has the same
/// factors.
namespace mezzotint::convert {

/// A norm with weights of its own and the layers that read it.
struct NormGroup {
  std::vector<size_t> parts;    ///< rows of its weight and, where it has one, of its bias
  std::vector<size_t> readers;  ///< rows of weights, one or more, as wide as the norm
};

/// Groups that the presets of the plan's components know (Preset::norms) and whose norms are copied as floats.
std::vector<std::shared_ptr<const NormGroup>> find_norm_groups(const Plan& plan, const checkpoint::Model& model);

/// Factors of inputs as a norm takes them: the nearest powers of two, so that the model computes the same bits as
/// before. 1 where the norm's dtype cannot hold a product exactly.
void make_exact(const checkpoint::Model& model, const Plan& plan, const NormGroup& group, std::vector<float>& factors);

}  // namespace mezzotint::convert
