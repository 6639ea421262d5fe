#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/preset.h"

namespace mezzotint::convert {

/// Which architecture a component is.
struct Detection {
  struct Candidate {
    const Preset* preset = nullptr;
    int confidence = 0;
    std::string reason;
  };

  const Preset* preset = nullptr;     ///< never null: `generic` where nothing else fits
  int confidence = 0;                 ///< 0..100
  std::string reason;                 ///< one sentence, e.g. "head.modulation and ... are Wan's"
  std::string variant;                ///< member of the family, e.g. "i2v, 40 blocks, width 5120", or ""
  std::string prefix;                 ///< what to take off a name to get the architecture's own names
  std::vector<Candidate> runners_up;  ///< other presets that fit, best first

  bool known() const { return confidence > 0; }
};

/// Looks at the names and shapes of the tensors whose names start with `prefix`. Wrappers inside the component
/// ("transformer.", "model.", ...) are seen through. Depends on nothing else, and not on the order of the tensors.
Detection detect(std::span<const io::TensorInfo> tensors, std::string_view prefix = "");

/// The same for a preset that somebody named: finds the prefix and the variant; `reason` says that it was asked for.
Detection detect_as(const Preset& preset, std::span<const io::TensorInfo> tensors, std::string_view prefix = "");

}  // namespace mezzotint::convert
