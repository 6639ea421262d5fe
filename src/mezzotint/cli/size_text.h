#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace mezzotint::cli {

/// "512M", "9.5GiB", "1GB", "4096": K, M, G, T and KiB ... are powers of 1024, KB, MB, GB, TB powers of 1000; case and
/// blanks do not matter. Throws UsageError on anything else.
uint64_t parse_size(std::string_view text);

/// "27.1 GB", in powers of 1000.
std::string size_text(uint64_t bytes);
/// "1 h 02 min", "3 min 05 s", "12 s", "0.4 s"
std::string duration_text(double seconds);

}  // namespace mezzotint::cli
