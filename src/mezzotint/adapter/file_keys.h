#pragma once
#include <string>
#include <string_view>

/// From a key of an adapter file to a target and a role (room-internal).
namespace mezzotint::adapter {

struct Key {
  std::string target;
  std::string variant;    ///< PEFT's name of the adapter, "" for the default one
  std::string_view role;  ///< a role of an algorithm or of those below; "" where no suffix fits
};

/// Roles that do not belong to one algorithm.
inline constexpr std::string_view kAlpha = "alpha", kDoraScale = "dora_scale", kPeftMagnitude = "peft_magnitude",
                                  kBiasDiff = "diff_b", kUpBias = "lora_up_bias";

Key parse_key(std::string_view key);

/// Which adapter a key belongs to that nobody here can apply, as a clause, or "".
std::string foreign_reason(std::string_view key);

}  // namespace mezzotint::adapter
