#include "mezzotint/models/wan/wan.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv3d.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/view_as_complex.h>

#include <string>

namespace mezzotint::models::wan {
namespace {

constexpr double kTheta = 10000.0;

/// cos and sin of position * theta^(-i / half), [positions, 2 half].
at::Tensor sinusoidal_embedding(int64_t width, const at::Tensor& positions) {
  const at::Tensor p = positions.to(at::kFloat);
  const int64_t half = width / 2;
  const at::Tensor angles = at::outer(p, at::pow(kTheta, -(at::arange(half, p.options()) / half)));
  return at::cat({angles.cos(), angles.sin()}, 1);
}

/// Turns of one axis: [count, width / 2, 2, 2], computed in float64.
at::Tensor axis_matrices(int64_t width, int64_t count) {
  const auto options = at::TensorOptions(at::kDouble);
  const at::Tensor omega = 1 / at::pow(kTheta, at::arange(0, width, 2, options) / width);
  const at::Tensor angles = at::outer(at::arange(count, options), omega);
  const at::Tensor c = angles.cos(), s = angles.sin();
  return at::stack({c, -s, s, c}, -1).view({count, width / 2, 2, 2}).to(at::kFloat);
}

}  // namespace

at::Tensor rotary_matrices(int64_t head_width, int64_t frames, int64_t rows, int64_t columns) {
  const int64_t side = 2 * (head_width / 6), rest = head_width - 2 * side;
  const auto along = [&](int64_t width, int64_t count, int64_t axis) {
    std::vector<int64_t> shape = {1, 1, 1, width / 2, 2, 2};
    shape[static_cast<size_t>(axis)] = count;
    return axis_matrices(width, count).view(shape).expand({frames, rows, columns, width / 2, 2, 2});
  };
  return at::cat({along(rest, frames, 0), along(side, rows, 1), along(side, columns, 2)}, 3)
      .reshape({1, frames * rows * columns, 1, head_width / 2, 2, 2});
}

at::Tensor rotary_turns(int64_t head_width, int64_t frames, int64_t rows, int64_t columns) {
  return at::view_as_complex(rotary_matrices(head_width, frames, rows, columns).select(-1, 0).contiguous());
}

/// A convolution whose stride is its kernel, in float32.
class Transformer::PatchEmbedding : public nn::Layer {
 public:
  explicit PatchEmbedding(const Config& config) : patch_(config.patch) {
    add_parameter("weight", weight, {config.width, config.channels_in, patch_[0], patch_[1], patch_[2]});
    add_parameter("bias", bias, {config.width});
  }
  at::Tensor forward(const at::Tensor& x) const {
    return at::conv3d(x.to(at::kFloat), weight.to(at::kFloat), bias.to(at::kFloat), patch_).to(x.scalar_type());
  }
  at::Tensor weight, bias;

 private:
  std::array<int64_t, 3> patch_;
};

/// Child "1" like that of the published Sequential of SiLU and linear.
class Transformer::TimeProjection : public nn::Layer {
 public:
  explicit TimeProjection(const Config& config)
      : linear_(register_module("1", std::make_shared<nn::Linear>(config.width, 6 * config.width))) {}
  at::Tensor forward(const at::Tensor& x) const { return linear_->forward(at::silu(x)); }

 private:
  std::shared_ptr<nn::Linear> linear_;
};

class Transformer::Head : public nn::Layer {
 public:
  explicit Head(const Config& config)
      : eps_(config.eps),
        linear_(register_module(
            "head", std::make_shared<nn::Linear>(
                        config.width, config.patch[0] * config.patch[1] * config.patch[2] * config.channels_out))) {
    add_parameter("modulation", modulation, {1, 2, config.width});
  }
  /// x [B, L, C], time [B, T, C].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& time) const {
    const auto e = (modulation.to(x.scalar_type()).unsqueeze(0) + time.unsqueeze(2)).unbind(2);
    return linear_->forward(modulate(x, e[0], e[1], eps_));
  }
  at::Tensor modulation;

 private:
  double eps_;
  std::shared_ptr<nn::Linear> linear_;
};

Transformer::Transformer(const Config& config)
    : config_(config),
      patch_embedding_(register_module("patch_embedding", std::make_shared<PatchEmbedding>(config))),
      text_embedding_(register_module(
          "text_embedding",
          std::make_shared<TwoLayers>(config.text_width, config.width, config.width, TwoLayers::Between::gelu_tanh))),
      time_embedding_(register_module(
          "time_embedding",
          std::make_shared<TwoLayers>(config.frequencies, config.width, config.width, TwoLayers::Between::silu))),
      time_projection_(register_module("time_projection", std::make_shared<TimeProjection>(config))) {
  const auto blocks = register_module("blocks", std::make_shared<nn::Layer>());
  for (int64_t i = 0; i < config.layers; ++i)
    blocks_.push_back(blocks->register_module(std::to_string(i), std::make_shared<Block>(config)));
  head_ = register_module("head", std::make_shared<Head>(config));
}

at::Tensor Transformer::forward(const at::Tensor& x, const at::Tensor& timestep, const at::Tensor& text) const {
  TORCH_CHECK(x.dim() == 5 && x.size(1) == config_.channels_in, "a latent [B, ", config_.channels_in,
              ", F, H, W] is wanted, not ", x.sizes());
  TORCH_CHECK(text.dim() == 3 && text.size(2) == config_.text_width && text.size(0) == x.size(0), "a text [", x.size(0),
              ", L, ", config_.text_width, "] is wanted, not ", text.sizes());
  TORCH_CHECK(timestep.dim() >= 1 && timestep.size(0) == x.size(0), "a time step for each of ", x.size(0),
              " samples is wanted, not ", timestep.sizes());
  std::vector<int64_t> padding, grid;
  for (size_t d = 3; d-- > 0;) {
    const int64_t size = x.size(static_cast<int64_t>(d) + 2), patch = config_.patch[d];
    padding.insert(padding.end(), {0, (patch - size % patch) % patch});
    grid.insert(grid.begin(), (size + patch - 1) / patch);
  }
  at::Tensor tokens = patch_embedding_->forward(at::pad(x, padding, "circular")).flatten(2).transpose(1, 2);

  at::Tensor time = sinusoidal_embedding(config_.frequencies, timestep.flatten()).to(x.scalar_type());
  time = time_embedding_->forward(time).view({x.size(0), -1, config_.width});
  const at::Tensor parts = time_projection_->forward(time).unflatten(2, {6, config_.width});
  const at::Tensor context = text_embedding_->forward(text);
  const at::Tensor turns = rotary_turns(config_.width / config_.heads, grid[0], grid[1], grid[2]).to(x.device());
  for (const auto& block : blocks_) tokens = block->forward(tokens.contiguous(), parts, context, turns);
  tokens = head_->forward(tokens, time);

  const auto& p = config_.patch;
  return tokens.view({x.size(0), grid[0], grid[1], grid[2], p[0], p[1], p[2], config_.channels_out})
      .permute({0, 7, 1, 4, 2, 5, 3, 6})
      .reshape({x.size(0), config_.channels_out, grid[0] * p[0], grid[1] * p[1], grid[2] * p[2]})
      .narrow(2, 0, x.size(2))
      .narrow(3, 0, x.size(3))
      .narrow(4, 0, x.size(4));
}

}  // namespace mezzotint::models::wan
