#include "mezzotint/models/wan/block.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>

#include <vector>

namespace mezzotint::models::wan {
namespace {

/// Turns pairs of neighbouring channels: x [B, L, n, d], turns [1, L, 1, d / 2].
at::Tensor rotate(const at::Tensor& x, const at::Tensor& turns) {
  const at::Tensor pairs = at::view_as_complex(x.to(at::kFloat).reshape({x.size(0), x.size(1), x.size(2), -1, 2}));
  return at::view_as_real(pairs * turns).reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace

at::Tensor for_tokens(const at::Tensor& part, int64_t tokens) {
  const int64_t steps = part.size(1);
  if (steps == 1 || steps == tokens) return part;
  const int64_t each = (tokens + steps - 1) / steps;
  return at::repeat_interleave(part, each, 1).narrow(1, 0, tokens);
}

at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, double eps) {
  const at::Tensor normalized = at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
  return at::addcmul(for_tokens(shift, x.size(1)), normalized, 1 + for_tokens(scale, x.size(1)));
}

Attention::Attention(const Config& config)
    : heads_(config.heads),
      q_(register_module("q", std::make_shared<nn::Linear>(config.width, config.width))),
      k_(register_module("k", std::make_shared<nn::Linear>(config.width, config.width))),
      v_(register_module("v", std::make_shared<nn::Linear>(config.width, config.width))),
      o_(register_module("o", std::make_shared<nn::Linear>(config.width, config.width))),
      norm_q_(register_module("norm_q", std::make_shared<nn::RmsNorm>(config.width, config.eps))),
      norm_k_(register_module("norm_k", std::make_shared<nn::RmsNorm>(config.width, config.eps))) {}

at::Tensor Attention::forward(const at::Tensor& x, const at::Tensor& source, const at::Tensor& turns) const {
  const auto by_head = [&](const at::Tensor& t) { return t.view({t.size(0), t.size(1), heads_, -1}); };
  at::Tensor q = by_head(norm_q_->forward(q_->forward(x)));
  at::Tensor k = by_head(norm_k_->forward(k_->forward(source)));
  if (turns.defined()) {
    q = rotate(q, turns);
    k = rotate(k, turns);
  }
  const at::Tensor v = by_head(v_->forward(source));
  const at::Tensor out =
      at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2);
  return o_->forward(out.reshape(x.sizes()));
}

TwoLayers::TwoLayers(int64_t inputs, int64_t inner, int64_t outputs, Between between)
    : between_(between),
      first_(register_module("0", std::make_shared<nn::Linear>(inputs, inner))),
      second_(register_module("2", std::make_shared<nn::Linear>(inner, outputs))) {}

at::Tensor TwoLayers::forward(const at::Tensor& x) const {
  const at::Tensor inner = first_->forward(x);
  return second_->forward(between_ == Between::silu ? at::silu(inner) : at::gelu(inner, "tanh"));
}

Block::Block(const Config& config)
    : eps_(config.eps),
      self_(register_module("self_attn", std::make_shared<Attention>(config))),
      cross_(register_module("cross_attn", std::make_shared<Attention>(config))),
      feed_forward_(register_module("ffn", std::make_shared<TwoLayers>(config.width, config.feed_forward, config.width,
                                                                       TwoLayers::Between::gelu_tanh))) {
  if (config.cross_norm)
    cross_norm_ = register_module("norm3", std::make_shared<nn::LayerNorm>(config.width, config.eps));
  add_parameter("modulation", modulation, {1, 6, config.width});
}

at::Tensor Block::forward(at::Tensor x, const at::Tensor& time, const at::Tensor& text, const at::Tensor& turns) const {
  const std::vector<at::Tensor> e = (modulation.to(x.scalar_type()).unsqueeze(0) + time).unbind(2);
  const at::Tensor inner = modulate(x, e[0], e[1], eps_);
  x = at::addcmul(x, self_->forward(inner, inner, turns), for_tokens(e[2], x.size(1)));
  x = x + cross_->forward(cross_norm_ ? cross_norm_->forward(x) : x, text, {});
  return at::addcmul(x, feed_forward_->forward(modulate(x, e[3], e[4], eps_)), for_tokens(e[5], x.size(1)));
}

}  // namespace mezzotint::models::wan
