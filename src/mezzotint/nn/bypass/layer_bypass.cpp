#include "mezzotint/nn/bypass/layer_bypass.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/square.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::nn {
namespace {

/// a + b in the dtype of a, rounded once.
at::Tensor sum_of(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor sum = at::add(a, b);
  return sum.scalar_type() == a.scalar_type() ? sum : sum.to(a.scalar_type());
}

/// One number per output or input channel, to be multiplied with t along `dim`.
at::Tensor spread(const at::Tensor& values, const at::Tensor& t, int64_t dim) {
  std::vector<int64_t> shape(static_cast<size_t>(t.dim()), 1);
  shape[static_cast<size_t>(dim < 0 ? dim + t.dim() : dim)] = -1;
  return values.reshape(shape).to(t.options());
}

/// What vectors of v along the axis are multiplied with to get their magnitudes; 0 for those of zeros.
at::Tensor lengthening(const at::Tensor& v, const at::Tensor& magnitude, adapter::DoraAxis axis) {
  std::vector<int64_t> others;
  for (int64_t dim = 0; dim < v.dim(); ++dim)
    if (dim != (axis == adapter::DoraAxis::rows ? 0 : 1)) others.push_back(dim);
  const at::Tensor squares = at::square(v).sum(others), none = squares == 0;
  const at::Tensor norm = at::where(none, at::ones_like(squares), squares).sqrt();
  return at::where(none, at::zeros_like(norm), magnitude.flatten().to(norm.options()) / norm);
}

LayerCall computing_in(const LayerCall& call, bool float32) {
  LayerCall other = call;
  if (float32 && call.type != at::kDouble) other.type = at::kFloat;
  return other;
}

}  // namespace

at::Tensor effective_weight(const at::Tensor& weight) {
  const at::ScalarType type = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor values =
      tensor::dequantized(weight, tensor::is_quantized(weight) ? std::optional(type) : std::nullopt);
  if (!tensor::is_quantized(weight)) return values.to(type);
  const at::Tensor& smoothing = tensor::quantized(weight).product()->pre_quant_scale;
  return smoothing.defined() ? at::mul(values, smoothing) : values;
}

void LayerBypass::add(Entry entry) {
  const std::scoped_lock lock(mutex_);
  entries_.push_back(std::move(entry));
  batches_.assign(entries_.size(), {});
  lengths_.assign(entries_.size(), {});
}

bool LayerBypass::remove(const BypassSwitch* control) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.control.get() == control; });
  batches_.assign(entries_.size(), {});
  lengths_.assign(entries_.size(), {});
  return !entries_.empty();
}

at::Tensor LayerBypass::forward(LayerCall call, const at::Tensor& x, const at::Tensor& bias) {
  call.type = x.scalar_type();
  call.device = x.device();
  // A bias goes with the layer's own product where nothing but sums come behind it.
  const size_t active = without_idle(entries_.size()), first = first_of_batch(active);
  const bool fused = bias.defined() && first < active && without_idle(first) == 0;
  at::Tensor y;
  if (active == 0 || fused) {
    y = call(x, weight_, bias.defined() ? std::optional(bias) : std::nullopt);
    if (fused) y = add_batch(first, active, call, x, y);
  } else {
    y = run(active, call, x);
    if (bias.defined()) y = sum_of(y, spread(bias, y, call.channels()));
  }
  for (const Entry& entry : entries_) {
    if (entry.change || !entry.control->active()) continue;
    const at::Tensor all = entry.rows.put(at::zeros({entry.rows.total}, entry.bias.options()), entry.bias, 0);
    y = sum_of(y, spread(all * entry.control->strength, y, call.channels()));
  }
  return y;
}

size_t LayerBypass::without_idle(size_t count) const {
  while (count > 0 && !(entries_[count - 1].change && entries_[count - 1].control->active())) --count;
  return count;
}

at::Tensor LayerBypass::run(size_t count, const LayerCall& call, const at::Tensor& x) {
  count = without_idle(count);
  if (count == 0) return call(x, weight_);
  if (const size_t first = first_of_batch(count); first < count)
    return add_batch(first, count, call, x, run(first, call, x));
  const Entry& entry = entries_[count - 1];
  TORCH_CHECK(call.groups == 1 || (entry.rows.whole() && entry.rows.total / call.groups % entry.change->granule() == 0),
              "an adapter of some rows of a convolution with groups, or one that mixes them, can only be merged");
  if (entry.magnitude.defined()) return with_magnitude(count - 1, call, x);
  const double strength = entry.control->strength;
  if (entry.rows.whole()) return changed(count - 1, strength, call, x, {});
  const at::Tensor front = run(count - 1, call, x);
  return entry.rows.put(front, changed(count - 1, strength, call, x, front), call.channels());
}

at::Tensor LayerBypass::changed(size_t index, double strength, const LayerCall& layer, const at::Tensor& x,
                                const at::Tensor& front) {
  const Entry& entry = entries_[index];
  const LayerCall call = computing_in(layer, entry.float32);
  const at::Tensor in = x.to(call.type);
  const at::Tensor edit = entry.change->input(call, in, strength);
  at::Tensor part;
  if (front.defined()) {
    part = entry.rows.take(front, call.channels());
    if (edit.defined())
      part = at::add(part, entry.rows.take(run(index, layer, edit.to(x.scalar_type())), call.channels()));
  } else {
    part = entry.rows.take(run(index, layer, edit.defined() ? sum_of(x, edit) : x), call.channels());
  }
  const at::ScalarType type = part.scalar_type();
  if (const at::Tensor added = entry.change->added(call, in, strength); added.defined()) part = at::add(part, added);
  if (!entry.change->rotates()) return part.to(type);
  return entry.change->output(part.to(call.type), call.channels(), strength).to(type);
}

// W + s (V d - W), V the weight with the change at strength 1, d its lengths' correction: see adapter/dora.h.
at::Tensor LayerBypass::with_magnitude(size_t index, const LayerCall& call, const at::Tensor& x) {
  const Entry& entry = entries_[index];
  const double strength = entry.control->strength;
  const at::Tensor d = ratio(index, call);
  const int64_t channels = call.channels();
  at::Tensor front, v;
  const bool needs_front = strength != 1 || !entry.rows.whole();
  if (needs_front) front = run(index, call, x);
  if (entry.axis == adapter::DoraAxis::rows) {
    v = changed(index, 1, call, x, front);
    v = v * spread(d, v, channels);
  } else {
    v = changed(index, 1, call, x * spread(d.repeat({call.groups}), x, channels), {});
  }
  if (!needs_front) return v;
  const at::Tensor part = entry.rows.take(front, channels);
  return entry.rows.put(front, part + (v - part) * strength, channels);
}

at::Tensor LayerBypass::ratio(size_t index, const LayerCall& call) {
  const Entry& entry = entries_[index];
  const auto make = [&] {
    return lengthening(entry.change->weight(entry.rows.take(merged(index), 0), 1), entry.magnitude, entry.axis);
  };
  std::vector<at::Tensor> all = factors(0, index + 1);
  all.push_back(entry.magnitude);
  all.push_back(weight_);
  const bool moving = need_gradients(all);
  if (moving) return make().to(call.device);
  const std::scoped_lock lock(mutex_);
  Lengths& lengths = lengths_[index];
  const std::vector<double> in_front = strengths(0, index);
  std::vector<int64_t> stamp = stamp_of(all);
  if (!lengths.ratio.defined() || lengths.strengths != in_front || lengths.stamp != stamp ||
      lengths.ratio.device() != call.device) {
    const c10::InferenceMode ordinary(false);
    const at::NoGradGuard constant;
    lengths.strengths = in_front;
    lengths.stamp = std::move(stamp);
    lengths.ratio = make().to(call.device);
  }
  return lengths.ratio;
}

at::Tensor LayerBypass::merged(size_t count) const {
  at::Tensor w = effective_weight(weight_);
  for (size_t i = 0; i < count; ++i) {
    const Entry& entry = entries_[i];
    if (!entry.change || !entry.control->active()) continue;
    const double strength = entry.control->strength;
    at::Tensor part = entry.rows.take(w, 0);
    if (entry.magnitude.defined()) {
      const at::Tensor v = entry.change->weight(part, 1);
      const int64_t dim = entry.axis == adapter::DoraAxis::rows ? 0 : 1;
      const at::Tensor d = spread(lengthening(v, entry.magnitude, entry.axis), v, dim);
      part = part + (v * d - part) * strength;
    } else {
      part = entry.change->weight(part, strength);
    }
    w = entry.rows.put(w, part, 0);
  }
  return w;
}

std::vector<double> LayerBypass::strengths(size_t first, size_t count) const {
  std::vector<double> all;
  for (size_t i = first; i < count; ++i)
    all.push_back(entries_[i].control->active() ? entries_[i].control->strength : 0);
  return all;
}

std::vector<at::Tensor> LayerBypass::factors(size_t first, size_t count) const {
  std::vector<at::Tensor> all;
  for (size_t i = first; i < count; ++i) {
    if (!entries_[i].change) continue;
    all.insert(all.end(), entries_[i].change->factors().begin(), entries_[i].change->factors().end());
    if (entries_[i].magnitude.defined()) all.push_back(entries_[i].magnitude);
  }
  return all;
}

size_t LayerBypass::first_of_batch(size_t count) const {
  size_t first = count;
  std::optional<bool> float32;
  for (size_t i = count; i-- > 0;) {
    const Entry& entry = entries_[i];
    if (!entry.change) continue;
    if (dynamic_cast<const LowRankChange*>(entry.change.get()) == nullptr || entry.magnitude.defined() ||
        float32.value_or(entry.float32) != entry.float32)
      break;
    float32 = entry.float32;
    first = i;
  }
  return first;
}

LayerBypass::Batch LayerBypass::make_batch(size_t first, size_t count, const LayerCall& call,
                                           const at::Tensor& down) const {
  std::vector<at::Tensor> downs, ups;
  for (size_t i = first; i < count; ++i) {
    const Entry& entry = entries_[i];
    if (!entry.change || !entry.control->active()) continue;
    const auto& change = static_cast<const LowRankChange&>(*entry.change);
    if (!down.defined()) downs.push_back(change.down());
    const at::Tensor up = change.up() * (entry.control->strength * change.scale());
    ups.push_back(entry.rows.put(at::zeros({entry.rows.total, up.size(1)}, up.options()), up, 0));
  }
  Batch batch;
  batch.down = down.defined() ? down : call.cast(downs.size() == 1 ? downs[0] : at::cat(downs));
  batch.up = call.cast(ups.size() == 1 ? ups[0] : at::cat(ups, 1));
  return batch;
}

// Other strengths touch the ups only.
at::Tensor LayerBypass::add_batch(size_t first, size_t count, const LayerCall& layer, const at::Tensor& x,
                                  at::Tensor y) {
  const LayerCall call = computing_in(layer, entries_[first].float32);
  for (size_t i = first; i < count && call.groups != 1; ++i)
    TORCH_CHECK(entries_[i].rows.whole(), "an adapter of some rows of a convolution with groups can only be merged");
  const std::vector<at::Tensor> tensors = factors(first, count);
  const bool differentiable = need_gradients(tensors);
  at::Tensor down, up;
  if (differentiable) {
    const Batch batch = make_batch(first, count, call, {});
    down = batch.down;
    up = batch.up;
  } else {
    const std::scoped_lock lock(mutex_);
    Batch& batch = batches_[first];
    std::vector<double> now = strengths(first, count);
    std::vector<int64_t> stamp = stamp_of(tensors);
    const bool same = batch.down.defined() && batch.stamp == stamp && batch.down.scalar_type() == call.type &&
                      batch.down.device() == call.device &&
                      std::ranges::equal(batch.strengths, now, [](double a, double b) { return (a == 0) == (b == 0); });
    if (!same || batch.strengths != now) {
      const c10::InferenceMode ordinary(false);
      const at::NoGradGuard constant;
      batch = make_batch(first, count, call, same ? batch.down : at::Tensor());
      batch.stamp = std::move(stamp);
      batch.strengths = std::move(now);
    }
    down = batch.down;
    up = batch.up;
  }
  const at::Tensor hidden = call.down(x.to(call.type), down);
  if (!call.linear() || call.type != y.scalar_type() || hidden.scalar_type() != y.scalar_type())
    return sum_of(y, call.up(hidden, up));
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  if (at::GradMode::is_enabled() && (y.requires_grad() || hidden.requires_grad() || up.requires_grad()))
    return at::addmm(y.reshape({-1, y.size(-1)}), rows, up.t()).reshape(y.sizes());
  if (!y.is_contiguous()) y = y.contiguous();
  y.view({-1, y.size(-1)}).addmm_(rows, up.t());
  return y;
}

}  // namespace mezzotint::nn
