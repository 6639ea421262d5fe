#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <vector>

#include "mezzotint/base/dtype.h"
#include "mezzotint/nn/bypass/layer_adapter.h"
#include "mezzotint/nn/bypass/layer_call.h"

/// What an adapter makes of a layer (room-internal). A layer without its bias is linear in its weight and in its input,
/// so that what is done to W can be done to inputs and outputs:
///   x -> output(f(x + input(x)) + added(x))
namespace mezzotint::nn {

class Change {
 public:
  /// `factors`: what it computes from, for gradients and to know when they change.
  Change(Shape shape, std::vector<at::Tensor> factors) : shape_(std::move(shape)), factors_(std::move(factors)) {}
  virtual ~Change() = default;
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

  /// Of the rows of the weight that it is for: [O, I / groups, *kernel].
  const Shape& shape() const { return shape_; }
  const std::vector<at::Tensor>& factors() const { return factors_; }

  /// Undefined tensors are nothing.
  virtual at::Tensor input(const LayerCall& call, const at::Tensor& x, double strength) const;
  virtual at::Tensor added(const LayerCall& call, const at::Tensor& x, double strength) const;
  /// `y` has the outputs along `dim`. Gives y itself where rotates() is false.
  virtual at::Tensor output(const at::Tensor& y, int64_t dim, double strength) const;
  virtual bool rotates() const { return false; }
  /// Outputs that follow one another and are mixed.
  virtual int64_t granule() const { return 1; }

  /// The same to a weight.
  virtual at::Tensor weight(const at::Tensor& w, double strength) const = 0;

 private:
  Shape shape_;
  std::vector<at::Tensor> factors_;
};

/// Those that add a matrix.
class AdditiveChange : public Change {
 public:
  using Change::Change;
  /// In the dtype of the factors.
  virtual at::Tensor delta() const = 0;
  at::Tensor added(const LayerCall& call, const at::Tensor& x, double strength) const override;
  at::Tensor weight(const at::Tensor& w, double strength) const override;
};

/// delta = scale * up * down
class LowRankChange final : public AdditiveChange {
 public:
  /// core: between up and down, or undefined.
  LowRankChange(Shape shape, at::Tensor up, at::Tensor down, at::Tensor core, double scale);
  at::Tensor delta() const override;
  at::Tensor added(const LayerCall& call, const at::Tensor& x, double strength) const override;
  at::Tensor up() const;    ///< [O, r]
  at::Tensor down() const;  ///< [r, I / groups * kernel], the core in it
  double scale() const { return scale_; }

 private:
  at::Tensor up_, down_, core_;
  double scale_;
};

/// A core [r, s, *kernel] folded into what stands behind it [s, n]: [r, n * kernel].
at::Tensor fold_core(const at::Tensor& core, const at::Tensor& down);

/// Which tensors these are, and how often they were written to.
std::vector<int64_t> stamp_of(const std::vector<at::Tensor>& tensors);
/// Whether what is computed from them now must be differentiable.
bool need_gradients(const std::vector<at::Tensor>& tensors);

std::unique_ptr<const Change> make_low_rank(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_loha(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_lokr(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_difference(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_rotation(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_glora(const LayerAdapter& adapter, const Shape& shape);
std::unique_ptr<const Change> make_ia3(const LayerAdapter& adapter, const Shape& shape);

/// Throws Error "adapter-shape" where factors do not fit, "no-bypass" for algorithms and forms that have none.
std::unique_ptr<const Change> make_change(const LayerAdapter& adapter, const Shape& shape);

}  // namespace mezzotint::nn
