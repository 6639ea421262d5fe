#pragma once
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/nn/bypass/layer_adapter.h"

/// Scales and matrices of an adapter (room-internal).
namespace mezzotint::nn {

/// alpha / rank and the like, as in a merge.
inline double scale_of(const LayerAdapter& adapter, int64_t rank) {
  adapter::Factors facts;
  facts.alpha = adapter.alpha;
  facts.rank_stabilized = adapter.rank_stabilized;
  return facts.scale(rank);
}

/// What alpha bounds a norm by.
inline double bound_of(const LayerAdapter& adapter, int64_t rows) {
  adapter::Factors facts;
  facts.alpha = adapter.alpha;
  facts.constraint_per_row = adapter.constraint_per_row;
  return facts.bound(rows);
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
