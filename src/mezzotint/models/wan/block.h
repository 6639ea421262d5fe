#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "mezzotint/models/wan/config.h"
#include "mezzotint/nn/layer.h"

/// One block of the transformer (room-internal; wan.h is the model). B: batch, L: tokens, C: width, n: heads, d: width
/// of a head, T: time steps per sample (1, or one for every group of tokens).
namespace mezzotint::models::wan {

/// Attention over tokens; q and k are normalized over all heads at once.
class Attention : public nn::Layer {
 public:
  Attention(const Config& config);
  /// x [B, L, C]; `source` is what keys and values come from; `turns` (rotary_turns) is for q and k, undefined = not.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& source, const at::Tensor& turns) const;

 private:
  int64_t heads_;
  std::shared_ptr<nn::Linear> q_, k_, v_, o_;
  std::shared_ptr<nn::RmsNorm> norm_q_, norm_k_;
};

/// Linear layers with something between them; children "0" and "2" like those of the published Sequential.
class TwoLayers : public nn::Layer {
 public:
  enum class Between : uint8_t { gelu_tanh, silu };
  TwoLayers(int64_t inputs, int64_t inner, int64_t outputs, Between between);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  Between between_;
  std::shared_ptr<nn::Linear> first_, second_;
};

class Block : public nn::Layer {
 public:
  explicit Block(const Config& config);
  /// x [B, L, C], modulation of the time [B, T, 6, C], text [B, L2, C], turns as rotary_turns makes them.
  at::Tensor forward(at::Tensor x, const at::Tensor& time, const at::Tensor& text, const at::Tensor& turns) const;
  at::Tensor modulation;

 private:
  double eps_;
  std::shared_ptr<Attention> self_, cross_;
  std::shared_ptr<nn::LayerNorm> cross_norm_;
  std::shared_ptr<TwoLayers> feed_forward_;
};

/// (1 + scale) * norm(x) + shift with a norm that has no weights; scale and shift [B, T, C], each for L / T tokens.
at::Tensor modulate(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, double eps);
/// [B, T, C] for every one of `tokens` tokens; itself where T is 1.
at::Tensor for_tokens(const at::Tensor& part, int64_t tokens);

}  // namespace mezzotint::models::wan
