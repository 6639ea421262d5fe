#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "mezzotint/adapter/dora.h"
#include "mezzotint/nn/bypass/change.h"
#include "mezzotint/nn/bypass/layer_call.h"
#include "mezzotint/tensor/stand_in.h"

/// All adapters of one weight, in the order in which they were attached (room-internal).
namespace mezzotint::nn {

/// What the entries of one adapter share.
struct BypassSwitch {
  double strength = 1;
  bool enabled = true;
  bool active() const { return enabled && strength != 0; }
};

/// Computes F_n(x), the layer behind n adapters without its bias, from F_n-1 as a function. So the order counts as in a
/// merge, and adapters that edit inputs or rotate outputs see the layer as the ones in front of them left it.
class LayerBypass final : public tensor::Interceptor {
 public:
  struct Entry {
    std::shared_ptr<const BypassSwitch> control;
    std::unique_ptr<const Change> change;  ///< null: a difference of the bias
    RowMap rows;
    bool float32 = false;  ///< computes in float32, whatever the input's dtype
    at::Tensor magnitude;  ///< DoRA's, or undefined
    adapter::DoraAxis axis = adapter::DoraAxis::rows;
    at::Tensor bias;  ///< difference of the bias
  };

  /// `weight`: [O, I], or [O, I / groups, *kernel] of a convolution.
  explicit LayerBypass(at::Tensor weight) : weight_(std::move(weight)) {}

  const at::Tensor& weight() const { return weight_; }
  void add(Entry entry);
  /// Removes the entries of an adapter; returns whether any are left.
  bool remove(const BypassSwitch* control);

  bool intercept(const c10::OperatorHandle& op, torch::jit::Stack& stack, const at::Tensor& argument) override;
  /// What the layer gives with the adapters that are switched on. `bias` may be undefined.
  at::Tensor forward(LayerCall call, const at::Tensor& x, const at::Tensor& bias);

 private:
  /// Factors of adapters that follow one another and are on, concatenated.
  struct Batch {
    std::vector<double> strengths;  ///< of all entries that may be in it; 0 = off
    std::vector<int64_t> stamp;
    at::Tensor down, up;
  };
  /// A DoRA entry's magnitude / norm.
  struct Lengths {
    std::vector<double> strengths;  ///< of the entries in front
    std::vector<int64_t> stamp;
    at::Tensor ratio;
  };

  /// How many of the first `count` entries matter: none behind them changes products and is on.
  size_t without_idle(size_t count) const;
  at::Tensor run(size_t count, const LayerCall& call, const at::Tensor& x);
  /// The rows of `entry` with its change at a strength, on what is F(x) in front of it. `front`: that, if it is known.
  at::Tensor changed(size_t index, double strength, const LayerCall& call, const at::Tensor& x,
                     const at::Tensor& front);
  at::Tensor with_magnitude(size_t index, const LayerCall& call, const at::Tensor& x);
  at::Tensor ratio(size_t index, const LayerCall& call);
  /// First of the low-rank entries that end in front of `count`; count where there is none.
  size_t first_of_batch(size_t count) const;
  at::Tensor add_batch(size_t first, size_t count, const LayerCall& call, const at::Tensor& x, at::Tensor y);
  Batch make_batch(size_t first, size_t count, const LayerCall& call, const at::Tensor& down) const;
  /// The weight behind `count` entries, decoded.
  at::Tensor merged(size_t count) const;
  std::vector<double> strengths(size_t first, size_t count) const;
  std::vector<at::Tensor> factors(size_t first, size_t count) const;

  at::Tensor weight_;
  std::vector<Entry> entries_;
  std::mutex mutex_;
  std::vector<Batch> batches_;    ///< by their first entry
  std::vector<Lengths> lengths_;  ///< by entry
};

/// Values of a weight as its layer multiplies with them, in float32 (float64 stays).
at::Tensor effective_weight(const at::Tensor& weight);

}  // namespace mezzotint::nn
