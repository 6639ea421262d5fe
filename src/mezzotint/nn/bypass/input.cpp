// GLoRA and IA3, which also change what a layer reads.
#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/matmul.h>

#include "mezzotint/nn/bypass/change.h"
#include "mezzotint/nn/bypass/factors.h"

namespace mezzotint::nn {
namespace {

/// W + scale (W A + B), A = left right on the input channels, B = up down.
struct GloraMatrices {
  at::Tensor left, right, up, down, core;
};

class GloraChange final : public Change {
 public:
  GloraChange(Shape shape, GloraMatrices factors, double scale)
      : Change(std::move(shape), defined({factors.left, factors.right, factors.up, factors.down, factors.core})),
        f_(std::move(factors)),
        scale_(scale) {}

  at::Tensor input(const LayerCall& call, const at::Tensor& x, double strength) const override {
    return call.pointwise(call.pointwise(x, call.cast(f_.right.flatten(1))),
                          call.cast(f_.left.flatten(1) * (strength * scale_)));
  }
  at::Tensor added(const LayerCall& call, const at::Tensor& x, double strength) const override {
    return call.up(call.down(x, call.cast(down())), call.cast(f_.up.flatten(1) * (strength * scale_)));
  }
  at::Tensor weight(const at::Tensor& w, double strength) const override {
    const at::Tensor a = at::matmul(f_.left.flatten(1), f_.right.flatten(1)).to(w.options());
    const at::Tensor b = at::matmul(f_.up.flatten(1), down()).to(w.options());
    const at::Tensor wa = at::einsum("oik,ij->ojk", {w.reshape({w.size(0), w.size(1), -1}), a});
    return w + (wa.reshape(w.sizes()) + b.reshape(w.sizes())) * (strength * scale_);
  }

 private:
  at::Tensor down() const { return f_.core.defined() ? fold_core(f_.core, f_.down) : f_.down.flatten(1); }

  GloraMatrices f_;
  double scale_;
};

class Ia3Change final : public Change {
 public:
  /// `subtract`: 1, of files that store factors and not what they differ from 1 by.
  Ia3Change(Shape shape, const at::Tensor& factors, double subtract, bool on_input)
      : Change(std::move(shape), {factors}), subtract_(subtract), on_input_(on_input) {}
  bool rotates() const override { return !on_input_; }

  at::Tensor input(const LayerCall& call, const at::Tensor& x, double strength) const override {
    if (!on_input_) return {};
    const at::Tensor w = along(values(), x, call.channels(), strength);
    return x * (call.groups == 1 ? w : w.repeat(repeats(w, call)));
  }
  at::Tensor output(const at::Tensor& y, int64_t dim, double strength) const override {
    return on_input_ ? y : y + y * along(values(), y, dim, strength);
  }
  at::Tensor weight(const at::Tensor& w, double strength) const override {
    return w + w * along(values(), w, on_input_ ? 1 : 0, strength);
  }

 private:
  at::Tensor values() const { return factors()[0].flatten() - subtract_; }
  /// strength * w, to be multiplied with y along `dim`.
  static at::Tensor along(const at::Tensor& w, const at::Tensor& y, int64_t dim, double strength) {
    std::vector<int64_t> shape(static_cast<size_t>(y.dim()), 1);
    shape[static_cast<size_t>(dim < 0 ? dim + y.dim() : dim)] = -1;
    return (w * strength).reshape(shape).to(y.options());
  }
  static std::vector<int64_t> repeats(const at::Tensor& w, const LayerCall& call) {
    std::vector<int64_t> repeats(static_cast<size_t>(w.dim()), 1);
    repeats[1] = call.groups;
    return repeats;
  }

  double subtract_;
  bool on_input_;
};

}  // namespace

std::unique_ptr<const Change> make_glora(const LayerAdapter& adapter, const Shape& shape) {
  const at::Tensor a1 = factor_of(adapter, "a1"), a2 = factor_of(adapter, "a2"), b1 = factor_of(adapter, "b1"),
                   b2 = factor_of(adapter, "b2"), core = factor_of(adapter, "bm");
  const int64_t outputs = shape.at(0), inputs = shape.at(1);
  // Where shapes fit both layouts, it is the new one (adapter/algorithms/glora.cpp).
  const int64_t rank = a2.size(0);
  const bool modern = a1.flatten(1).size(1) == rank && a1.size(0) == inputs && a2.flatten(1).size(1) == inputs &&
                      b1.size(0) == outputs && (core.defined() || b1.flatten(1).size(1) == b2.size(0));
  if (modern) return std::make_unique<GloraChange>(shape, GloraMatrices{a1, a2, b1, b2, core}, scale_of(adapter, rank));
  if (a2.size(0) != inputs) {
    throw Error({.name = "no-bypass",
                 .problem = "GLoRA's old layout mixes positions of the kernel, which only a merge can do",
                 .found = adapter.algorithm});
  }
  return std::make_unique<GloraChange>(shape, GloraMatrices{a2, a1, b2, b1, {}}, scale_of(adapter, a1.size(0)));
}

std::unique_ptr<const Change> make_ia3(const LayerAdapter& adapter, const Shape& shape) {
  if (const at::Tensor l = factor_of(adapter, "ia3_l"); l.defined())
    return std::make_unique<Ia3Change>(shape, l, 1, l.dim() >= 2 && l.size(0) == 1 && l.size(1) != 1);
  const at::Tensor w = factor_of(adapter, "weight");
  const bool on_input = factor_of(adapter, "on_input").flatten()[0].item<double>() != 0;
  if (w.numel() != shape.at(on_input ? 1 : 0)) {
    throw Error({.name = "adapter-shape",
                 .problem = "its factors do not fit the side that on_input names",
                 .found = adapter.algorithm});
  }
  return std::make_unique<Ia3Change>(shape, w, 0, on_input);
}

}  // namespace mezzotint::nn
