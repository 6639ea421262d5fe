#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "mezzotint/convert/report/text.h"

namespace mezzotint::cli {

/// "512M", "9.5GiB", "1GB", "4096": K, M, G, T and KiB ... are powers of 1024, KB, MB, GB, TB powers of 1000; case and
/// blanks do not matter. Throws UsageError on anything else.
uint64_t parse_size(std::string_view text);

using convert::duration_text;
using convert::size_text;

}  // namespace mezzotint::cli
