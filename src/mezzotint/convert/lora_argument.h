#pragma once
#include <string>

#include "mezzotint/convert/options.h"

namespace mezzotint::convert {

/// An adapter as people write it, FILE or FILE:STRENGTH. A strength is what follows the last colon if it reads as a
/// number, so that other colons in names do no harm; a file that is called so whole wins.
MergeLora parse_lora(const std::string& text);

}  // namespace mezzotint::convert
