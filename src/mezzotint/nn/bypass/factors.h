#pragma once
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/nn/bypass/layer_adapter.h"

/// Scales and matrices of an adapter (room-internal).
namespace mezzotint::nn {

/// What a file says besides its tensors, which gives scales and bounds as in a merge.
inline adapter::Factors facts_of(const LayerAdapter& adapter) {
  adapter::Factors facts;
  facts.alpha = adapter.alpha;
  facts.rank_stabilized = adapter.rank_stabilized;
  facts.constraint_per_row = adapter.constraint_per_row;
  return facts;
}
inline double scale_of(const LayerAdapter& adapter, int64_t rank) {
  return facts_of(adapter).scale(rank);
}
inline double bound_of(const LayerAdapter& adapter, int64_t rows) {
  return facts_of(adapter).bound(rows);
}

/// Undefined where there is none.
inline at::Tensor factor_of(const LayerAdapter& adapter, const std::string& role) {
  const auto found = adapter.factors.find(role);
  return found == adapter.factors.end() ? at::Tensor() : found->second;
}

/// The defined ones.
inline std::vector<at::Tensor> defined(std::initializer_list<at::Tensor> tensors) {
  std::vector<at::Tensor> some;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) some.push_back(tensor);
  return some;
}

}  // namespace mezzotint::nn
