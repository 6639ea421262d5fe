#pragma once
#include <cstdint>
#include <string>
#include <string_view>

/// Numbers as people read them.
namespace mezzotint::convert {

/// "27.1 GB", in powers of 1000.
std::string size_text(uint64_t bytes);
/// "1 h 02 min", "3 min 05 s", "12 s", "0.4 s"
std::string duration_text(double seconds);
/// "2.6 %": three significant digits; "not a number" and "infinite" in words.
std::string percent_text(double share);
/// "31.7 dB", or "exact" for +inf.
std::string decibel_text(double decibels);
/// "12.3 million", "4,096"
std::string count_text(uint64_t count);

}  // namespace mezzotint::convert
