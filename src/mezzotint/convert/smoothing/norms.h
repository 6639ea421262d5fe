#pragma once
#include <span>
#include <string_view>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/plan.h"
#include "mezzotint/convert/preset.h"

/// Norms in front of layers: what a layer's input is divided by, the norm's weight (and bias) can be divided by
/// instead, as in SmoothQuant (Xiao et al. 2023), section 4.2. Every layer that reads the norm then has the same
/// factors.
namespace mezzotint::convert {

/// A norm with a weight of its own and the layers that read it, as tensors of a file.
struct Norm {
  std::vector<size_t> parts;    ///< its weight and, where it has one, its bias
  std::vector<size_t> readers;  ///< weights, one or more
};

/// Norms that the preset knows (Preset::norms), of a component whose names start with `prefix`.
std::vector<Norm> find_norms(std::span<const io::TensorInfo> tensors, std::string_view prefix, const Preset& preset);

/// The same as rows of a plan.
struct NormGroup {
  std::vector<size_t> parts, readers;
};

/// Factors of inputs as a norm takes them: the nearest powers of two, so that the model computes the same bits as
/// before. 1 where the norm's dtype cannot hold a product exactly, and where its weight is 0.
void make_exact(const checkpoint::Model& model, const Plan& plan, const NormGroup& group, std::vector<float>& factors);

}  // namespace mezzotint::convert
