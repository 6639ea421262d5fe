#pragma once
#include <memory>
#include <vector>

#include "mezzotint/models/wan/block.h"

namespace mezzotint::models::wan {

/// The transformer with the published parameter names. Made without memory: every parameter waits on the meta device to
/// be loaded. Everything but the patch embedding, which works in float32, computes in the dtype of its input.
class Transformer : public nn::Layer {
 public:
  explicit Transformer(const Config& config);

  /// x [B, channels_in, F, H, W]; timestep [B] (0 to 1000), or [B, T] for T groups of tokens; text [B, L, text_width].
  /// Returns the velocity [B, channels_out, F, H, W]. Sizes that no patch fills are padded by going round.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& timestep, const at::Tensor& text) const;
  const Config& config() const { return config_; }

 private:
  class Head;
  class PatchEmbedding;
  class TimeProjection;

  Config config_;
  std::shared_ptr<PatchEmbedding> patch_embedding_;
  std::shared_ptr<TwoLayers> text_embedding_, time_embedding_;
  std::shared_ptr<TimeProjection> time_projection_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<Head> head_;
};

/// Matrices that turn the channel pairs of a head by the place of a token: [1, F H W, 1, d / 2, 2, 2] in float32, where
/// a head's width d is split among frames, rows and columns as 1/3 each, what is left to the frames.
at::Tensor rotary_matrices(int64_t head_width, int64_t frames, int64_t rows, int64_t columns);
/// The same as complex numbers, the first columns of those matrices: [1, F H W, 1, d / 2] in complex float32. Products
/// with these are several times as fast as with matrices.
at::Tensor rotary_turns(int64_t head_width, int64_t frames, int64_t rows, int64_t columns);

}  // namespace mezzotint::models::wan
