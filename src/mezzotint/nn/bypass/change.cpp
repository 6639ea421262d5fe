#include "mezzotint/nn/bypass/change.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <string_view>

#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::nn {

at::Tensor Change::input(const LayerCall&, const at::Tensor&, double) const {
  return {};
}
at::Tensor Change::added(const LayerCall&, const at::Tensor&, double) const {
  return {};
}
at::Tensor Change::output(const at::Tensor& y, int64_t, double) const {
  return y;
}

at::Tensor AdditiveChange::added(const LayerCall& call, const at::Tensor& x, double strength) const {
  return call(x, call.cast(delta() * strength));
}
at::Tensor AdditiveChange::weight(const at::Tensor& w, double strength) const {
  return w + (delta() * strength).to(w.options());
}

std::vector<int64_t> stamp_of(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> stamp;
  for (const at::Tensor& tensor : tensors) {
    stamp.push_back(std::bit_cast<int64_t>(tensor.unsafeGetTensorImpl()));
    stamp.push_back(tensor.has_storage() ? std::bit_cast<int64_t>(tensor.const_data_ptr()) : 0);
    stamp.push_back(tensor.is_inference() ? 0 : static_cast<int64_t>(tensor._version()));
  }
  return stamp;
}

bool need_gradients(const std::vector<at::Tensor>& tensors) {
  return at::GradMode::is_enabled() &&
         std::ranges::any_of(tensors, [](const at::Tensor& tensor) { return tensor.requires_grad(); });
}

std::unique_ptr<const Change> make_change(const LayerAdapter& adapter, const Shape& shape) {
  const auto fail = [&](std::string_view name, std::string problem) {
    return Error({.name = name, .problem = std::move(problem), .found = adapter.algorithm});
  };
  const adapter::Algorithm* algorithm = adapter::find_algorithm(adapter.algorithm);
  if (algorithm == nullptr) throw fail("no-bypass", "there is no adapter algorithm of this name");
  if (adapter.factors.contains("reshape_weight"))
    throw fail("no-bypass", "it enlarges the weight, which only a merge can do");
  adapter::Parts parts;
  for (const auto& [role, tensor] : adapter.factors) parts.parts.push_back({role, 0, tensor.sizes().vec()});
  if (!algorithm->claims(parts)) throw fail("adapter-shape", "these factors do not make an adapter");
  if (std::string problem = algorithm->misfit(parts, shape); !problem.empty())
    throw fail("adapter-shape", std::move(problem));
  using Make = std::unique_ptr<const Change> (*)(const LayerAdapter&, const Shape&);
  constexpr std::pair<std::string_view, Make> kMakers[] = {
      {"lora", make_low_rank}, {"loha", make_loha},     {"lokr", make_lokr},   {"diff", make_difference},
      {"oft", make_rotation},  {"boft", make_rotation}, {"glora", make_glora}, {"ia3", make_ia3},
  };
  for (const auto& [name, make] : kMakers)
    if (name == adapter.algorithm) return make(adapter, shape);
  throw fail("no-bypass", "adapters of this kind can only be merged");
}

}  // namespace mezzotint::nn
