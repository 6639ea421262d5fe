#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Files whose keys mean something else as they stand (room-internal).
namespace mezzotint::adapter {

struct Rewrite {
  std::string note;               ///< "" where the keys stay as they are
  std::vector<std::string> keys;  ///< parallel to the file's
  std::string enlarged;           ///< target whose weight takes the shape of its up and down, or ""
};

/// Applies the first of ComfyUI's rewrites (comfy/lora_convert.py) that fits: BFL control, Wan Fun, USO.
Rewrite rewrite_keys(std::vector<std::string> keys);

}  // namespace mezzotint::adapter
