// LoRA, LoHa, LoKr and whole differences.
#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include "mezzotint/nn/bypass/change.h"
#include "mezzotint/nn/bypass/factors.h"

namespace mezzotint::nn {
namespace {

/// One of LoHa's two products.
struct HadamardSide {
  at::Tensor a, b, core;
  at::Tensor value() const {
    return core.defined() ? at::matmul(a.flatten(1).t(), fold_core(core, b)) : at::matmul(a.flatten(1), b.flatten(1));
  }
};

class LohaChange final : public AdditiveChange {
 public:
  LohaChange(Shape shape, HadamardSide first, HadamardSide second, double scale)
      : AdditiveChange(std::move(shape), defined({first.a, first.b, first.core, second.a, second.b, second.core})),
        first_(std::move(first)),
        second_(std::move(second)),
        scale_(scale) {}
  at::Tensor delta() const override { return (first_.value() * second_.value() * scale_).reshape(shape()); }

 private:
  HadamardSide first_, second_;
  double scale_;
};

/// delta = scale * kron(small, big), small [l, m], big [p, n * kernel].
class LokrChange final : public AdditiveChange {
 public:
  LokrChange(const LayerAdapter& adapter, Shape shape, double scale)
      : AdditiveChange(std::move(shape), defined({factor_of(adapter, "lokr_w1"), factor_of(adapter, "lokr_w1_a"),
                                                  factor_of(adapter, "lokr_w1_b"), factor_of(adapter, "lokr_w2"),
                                                  factor_of(adapter, "lokr_w2_a"), factor_of(adapter, "lokr_w2_b"),
                                                  factor_of(adapter, "lokr_t2")})),
        whole1_(factor_of(adapter, "lokr_w1")),
        a1_(factor_of(adapter, "lokr_w1_a")),
        b1_(factor_of(adapter, "lokr_w1_b")),
        whole2_(factor_of(adapter, "lokr_w2")),
        a2_(factor_of(adapter, "lokr_w2_a")),
        b2_(factor_of(adapter, "lokr_w2_b")),
        core_(factor_of(adapter, "lokr_t2")),
        scale_(scale) {}

  at::Tensor delta() const override {
    const at::Tensor l = small(), r = big();
    return (l.unsqueeze(1).unsqueeze(3) * r.unsqueeze(0).unsqueeze(2) * scale_).reshape(shape());
  }

  at::Tensor added(const LayerCall& call, const at::Tensor& x, double strength) const override {
    if (call.groups != 1) return AdditiveChange::added(call, x, strength);
    const at::Tensor left = call.cast(small() * (strength * scale_)), right = call.cast(big());
    const int64_t l = left.size(0), m = left.size(1), p = right.size(0);
    if (call.linear()) {
      std::vector<int64_t> shape = x.sizes().vec();
      shape.back() = m;
      shape.push_back(-1);
      return at::matmul(left, at::linear(x.reshape(shape), right)).flatten(-2);
    }
    std::vector<int64_t> images = x.sizes().vec();
    const int64_t batch = images[0];
    images[0] *= m;
    images[1] /= m;
    const at::Tensor y = call.down(x.reshape(images), right);  // [B * m, p, ...]
    std::vector<int64_t> shape = y.sizes().vec();
    shape[0] = batch;
    shape[1] = l * p;
    return at::matmul(left, y.reshape({batch, m, -1})).reshape(shape);
  }

 private:
  at::Tensor small() const {
    return whole1_.defined() ? whole1_.flatten(1) : at::matmul(a1_.flatten(1), b1_.flatten(1));
  }
  at::Tensor big() const {
    if (whole2_.defined()) return whole2_.flatten(1);
    return core_.defined() ? at::matmul(a2_.flatten(1).t(), fold_core(core_, b2_))
                           : at::matmul(a2_.flatten(1), b2_.flatten(1));
  }
  at::Tensor whole1_, a1_, b1_, whole2_, a2_, b2_, core_;
  double scale_;
};

class DifferenceChange final : public AdditiveChange {
 public:
  DifferenceChange(Shape shape, const at::Tensor& difference, double factor)
      : AdditiveChange(std::move(shape), {difference}), factor_(factor) {}
  at::Tensor delta() const override { return factors()[0].reshape(shape()) * factor_; }

 private:
  double factor_;
};

}  // namespace

at::Tensor fold_core(const at::Tensor& core, const at::Tensor& down) {
  return at::einsum("ijk,jq->iqk", {core.reshape({core.size(0), core.size(1), -1}), down.flatten(1)}).flatten(1);
}

LowRankChange::LowRankChange(Shape shape, at::Tensor up, at::Tensor down, at::Tensor core, double scale)
    : AdditiveChange(std::move(shape), defined({up, down, core})),
      up_(std::move(up)),
      down_(std::move(down)),
      core_(std::move(core)),
      scale_(scale) {}

at::Tensor LowRankChange::up() const {
  return up_.flatten(1);
}
at::Tensor LowRankChange::down() const {
  return core_.defined() ? fold_core(core_, down_) : down_.flatten(1);
}
at::Tensor LowRankChange::delta() const {
  return (at::matmul(up(), down()) * scale_).reshape(shape());
}
at::Tensor LowRankChange::added(const LayerCall& call, const at::Tensor& x, double strength) const {
  return call.up(call.down(x, call.cast(down())), call.cast(up() * (strength * scale_)));
}

std::unique_ptr<const Change> make_low_rank(const LayerAdapter& adapter, const Shape& shape) {
  const at::Tensor down = factor_of(adapter, "lora_down");
  return std::make_unique<LowRankChange>(shape, factor_of(adapter, "lora_up"), down, factor_of(adapter, "lora_mid"),
                                         scale_of(adapter, down.size(0)));
}

std::unique_ptr<const Change> make_loha(const LayerAdapter& adapter, const Shape& shape) {
  const auto side = [&](const std::string& number) {
    return HadamardSide{factor_of(adapter, "hada_w" + number + "_a"), factor_of(adapter, "hada_w" + number + "_b"),
                        factor_of(adapter, "hada_t" + number)};
  };
  HadamardSide first = side("1");
  const double scale = scale_of(adapter, first.b.size(0));
  return std::make_unique<LohaChange>(shape, std::move(first), side("2"), scale);
}

std::unique_ptr<const Change> make_lokr(const LayerAdapter& adapter, const Shape& shape) {
  double scale = facts_of(adapter).scale_of_whole();
  if (!factor_of(adapter, "lokr_w2").defined()) {
    scale = scale_of(adapter, factor_of(adapter, "lokr_w2_b").size(0));
  } else if (!factor_of(adapter, "lokr_w1").defined()) {
    scale = scale_of(adapter, factor_of(adapter, "lokr_w1_b").size(0));
  }
  return std::make_unique<LokrChange>(adapter, shape, scale);
}

std::unique_ptr<const Change> make_difference(const LayerAdapter& adapter, const Shape& shape) {
  return std::make_unique<DifferenceChange>(shape, factor_of(adapter, "diff"), adapter.factor);
}

}  // namespace mezzotint::nn
