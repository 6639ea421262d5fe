#pragma once
#include <optional>
#include <span>
#include <string_view>

namespace mezzotint::cli {

/// An option of convert_to_quant (silveroxides) or its QuIP fork (ThunderFun).
struct ForeignOption {
  std::string_view names;   ///< separated by spaces, '-' for '_'
  std::string_view answer;  ///< ours instead, or why it is not needed: ends the sentence "... has no option X: "
};

std::span<const ForeignOption> foreign_options();

/// The answer for an option as it was typed, with its dashes; names may be cut short where that is unique, as argparse
/// allows.
std::optional<std::string_view> foreign_option(std::string_view spelled);

}  // namespace mezzotint::cli
