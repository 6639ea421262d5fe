#pragma once
#include <optional>
#include <string_view>

#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/formats/format.h"

/// Static scales of activations from what was measured.
namespace mezzotint::convert {

/// "amax" -> 100, "p99.9" -> 99.9 (more than 0, at most 100), "none" -> nothing. Throws Error "bad-option".
std::optional<double> parse_input_scale(std::string_view text);

/// percentile / Format::input_scale_divisor, in float32; nothing where loaders of the format read none, or where it
/// would not be a normal number (a layer that only ever saw zeros).
std::optional<float> input_scale(const LayerStatistics& statistics, const formats::Format& format, double percentile);

}  // namespace mezzotint::convert
