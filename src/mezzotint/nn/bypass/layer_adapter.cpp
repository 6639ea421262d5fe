#include "mezzotint/nn/bypass/layer_adapter.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace mezzotint::nn {
namespace {

at::Tensor from_file(const adapter::Tensor& tensor) {
  at::Tensor copy = at::empty(tensor.shape, at::TensorOptions(at::kFloat));
  std::copy(tensor.values.begin(), tensor.values.end(), copy.mutable_data_ptr<float>());
  return copy;
}

}  // namespace

LayerAdapter read_adapter(const adapter::AdapterFile& file, const adapter::Patch& patch) {
  LayerAdapter adapter;
  adapter.algorithm = patch.algorithm->name;
  const adapter::Factors factors = file.read(patch);
  for (const auto& [role, tensor] : factors.tensors) adapter.factors.emplace(role, from_file(tensor));
  adapter.alpha = factors.alpha;
  adapter.rank_stabilized = factors.rank_stabilized;
  adapter.constraint_per_row = factors.constraint_per_row;
  adapter.factor = factors.factor;
  if (patch.magnitude) adapter.magnitude = from_file(file.read(*patch.magnitude));
  adapter.peft_magnitude = patch.peft_magnitude;
  adapter.bias = patch.parameter == adapter::Parameter::bias;
  return adapter;
}

}  // namespace mezzotint::nn
