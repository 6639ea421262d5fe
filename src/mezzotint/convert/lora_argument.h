#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "mezzotint/convert/options.h"

namespace mezzotint::convert {

/// A number, with a + or - or without; nothing where the text is no more and no less than one.
std::optional<double> parse_strength(std::string_view text);

/// An adapter as people write it, FILE or FILE:STRENGTH. A strength is what follows the last colon if it reads as a
/// number, so that other colons in names do no harm; a file that is called so whole wins.
MergeLora parse_lora(const std::string& text);

}  // namespace mezzotint::convert
