// OFT and BOFT: rotations of the outputs, without the bias.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <c10/core/InferenceMode.h>

#include "mezzotint/nn/bypass/change.h"
#include "mezzotint/nn/bypass/factors.h"

namespace mezzotint::nn {
namespace {

class RotationChange final : public Change {
 public:
  RotationChange(Shape shape, at::Tensor blocks, at::Tensor rescale, double bound)
      : Change(std::move(shape), defined({blocks, rescale})),
        blocks_(std::move(blocks)),
        rescale_(std::move(rescale)),
        bound_(bound) {}
  bool rotates() const override { return true; }
  int64_t granule() const override {
    return blocks_.dim() == 3 ? blocks_.size(-1) : blocks_.size(-1) << (blocks_.size(0) - 1);
  }

  at::Tensor output(const at::Tensor& y, int64_t dim, double strength) const override {
    at::Tensor z = y.movedim(dim, -1);
    const at::Tensor r = rotations(y, strength);
    if (r.dim() == 3) {  // over its first index
      z = multiply(z, r);
    } else {  // over its second one, stage by stage
      const int64_t b = r.size(-1);
      for (int64_t stage = 0; stage < r.size(0); ++stage) {
        const int64_t half = (int64_t{1} << stage) * b / 2;
        const at::Tensor pairs = z.reshape({-1, z.size(-1) / (2 * half), 2, half}).transpose(2, 3);
        const at::Tensor turned = multiply(pairs, r.select(0, stage).mT());
        z = turned.transpose(2, 3).reshape(z.sizes());
      }
    }
    if (rescale_.defined()) z = z * ((rescale_.flatten() - 1) * strength + 1).to(y.options());
    return z.movedim(-1, dim);
  }

  at::Tensor weight(const at::Tensor& w, double strength) const override { return output(w, 0, strength); }

 private:
  /// z with its last dimensions as blocks of outputs times r [n, b, b].
  static at::Tensor multiply(const at::Tensor& z, const at::Tensor& r) {
    return at::bmm(z.reshape({-1, r.size(0), r.size(1)}).transpose(0, 1), r).transpose(0, 1).reshape(z.sizes());
  }

  /// (1 - s) I + s R in the dtype of y. R is the Cayley transform, made in double.
  at::Tensor rotations(const at::Tensor& y, double strength) const {
    if (need_gradients(factors())) return make(strength).to(y.options());
    const std::scoped_lock lock(mutex_);
    const std::vector<int64_t> stamp = stamp_of(factors());
    if (!cached_.defined() || stamp != stamp_ || strength != strength_ || cached_.scalar_type() != y.scalar_type() ||
        cached_.device() != y.device()) {
      const c10::InferenceMode ordinary(false);
      const at::NoGradGuard constant;
      cached_ = make(strength).to(y.options());
      stamp_ = stamp;
      strength_ = strength;
    }
    return cached_;
  }

  at::Tensor make(double strength) const {
    const at::Tensor blocks = blocks_.to(at::kDouble);
    at::Tensor q = blocks - blocks.mT();
    if (bound_ > 0)
      if (const at::Tensor norm = at::linalg_vector_norm(q); norm.item<double>() > bound_) q = q * (bound_ / norm);
    const at::Tensor one = at::eye(q.size(-1), q.options());
    return one + (at::linalg_solve(one - q, one + q) - one) * strength;
  }

  at::Tensor blocks_, rescale_;
  double bound_;
  mutable std::mutex mutex_;
  mutable at::Tensor cached_;
  mutable std::vector<int64_t> stamp_;
  mutable double strength_ = 0;
};

}  // namespace

std::unique_ptr<const Change> make_rotation(const LayerAdapter& adapter, const Shape& shape) {
  return std::make_unique<RotationChange>(shape, factor_of(adapter, "oft_blocks"), factor_of(adapter, "rescale"),
                                          bound_of(adapter, shape.at(0)));
}

}  // namespace mezzotint::nn
