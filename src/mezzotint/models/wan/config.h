#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "mezzotint/io/tensor_info.h"

/// Wan 2.1 and 2.2, text to video (Wan team, "Wan: Open and Advanced Large-Scale Video Generative Models", 2025).
namespace mezzotint::models::wan {

/// Sizes of a transformer; the defaults are those of Wan 2.1's 1.3B.
struct Config {
  int64_t width = 1536;
  int64_t feed_forward = 8960;
  int64_t layers = 30;
  int64_t heads = 12;
  int64_t channels_in = 16, channels_out = 16;  ///< of the latent
  int64_t text_width = 4096;
  int64_t frequencies = 256;                 ///< of the time embedding
  std::array<int64_t, 3> patch = {1, 2, 2};  ///< frames, rows, columns
  bool cross_norm = true;                    ///< a norm in front of the cross-attention
  double eps = 1e-6;
};

/// Reads the sizes off the names and shapes of a file; heads are 128 wide, as in all published models, unless `heads`
/// says otherwise. `prefix` stands in front of the architecture's own names. Throws Error "not-wan" where a tensor is
/// missing, "unsupported-model" for other members of the family (image to video and their like).
Config config_from(std::span<const io::TensorInfo> tensors, std::string_view prefix = "", int64_t heads = 0);

}  // namespace mezzotint::models::wan
