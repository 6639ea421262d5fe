#include "mezzotint/models/wan/config.h"

#include <fmt/format.h>

#include <map>
#include <string>

#include "mezzotint/base/error.h"

namespace mezzotint::models::wan {
namespace {

constexpr int64_t kHeadWidth = 128;

class Shapes {
 public:
  Shapes(std::span<const io::TensorInfo> tensors, std::string_view prefix) {
    for (const io::TensorInfo& info : tensors)
      if (info.name.starts_with(prefix))
        shapes_.emplace(std::string_view(info.name).substr(prefix.size()), &info.shape);
  }

  bool has(std::string_view name) const { return shapes_.contains(name); }
  bool any(std::string_view stem) const {
    const auto at = shapes_.lower_bound(stem);
    return at != shapes_.end() && at->first.starts_with(stem);
  }
  int64_t size(std::string_view name, size_t axis, size_t rank) const {
    const auto found = shapes_.find(name);
    if (found == shapes_.end() || found->second->size() != rank)
      throw Error({.name = "not-wan",
                   .problem = "the file is not a Wan transformer",
                   .tensor = std::string(name),
                   .expected = fmt::format("a tensor of rank {}", rank),
                   .found = found == shapes_.end() ? "none of that name" : to_string(*found->second)});
    return (*found->second)[axis];
  }

 private:
  std::map<std::string_view, const Shape*> shapes_;
};

}  // namespace

Config config_from(std::span<const io::TensorInfo> tensors, std::string_view prefix, int64_t heads) {
  const Shapes shapes(tensors, prefix);
  Config config;
  config.width = shapes.size("patch_embedding.weight", 0, 5);
  config.channels_in = shapes.size("patch_embedding.weight", 1, 5);
  for (size_t d = 0; d < 3; ++d) config.patch[d] = shapes.size("patch_embedding.weight", d + 2, 5);
  config.feed_forward = shapes.size("blocks.0.ffn.0.bias", 0, 1);
  config.text_width = shapes.size("text_embedding.0.weight", 1, 2);
  config.frequencies = shapes.size("time_embedding.0.weight", 1, 2);
  config.channels_out = shapes.size("head.head.bias", 0, 1) / (config.patch[0] * config.patch[1] * config.patch[2]);
  config.cross_norm = shapes.has("blocks.0.norm3.weight");
  config.layers = 0;
  while (shapes.any(fmt::format("blocks.{}.", config.layers))) ++config.layers;
  config.heads = heads > 0 ? heads : config.width / kHeadWidth;
  for (const std::string_view other : {"img_emb.", "vace_blocks.", "ref_conv.", "control_adapter.", "audio_", "face_"})
    if (shapes.any(other))
      throw Error({.name = "unsupported-model",
                   .problem = "this member of the Wan family takes more inputs than a latent and a text",
                   .found = std::string(other) + "*",
                   .advice = "Text-to-video models run."});
  if (config.heads == 0 || config.width % config.heads != 0)
    throw Error({.name = "not-wan",
                 .problem = "the width does not divide into heads",
                 .expected = fmt::format("a multiple of {}", heads > 0 ? heads : kHeadWidth),
                 .found = fmt::format("{}", config.width)});
  return config;
}

}  // namespace mezzotint::models::wan
