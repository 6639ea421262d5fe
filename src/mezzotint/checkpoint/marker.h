#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>

#include "mezzotint/formats/format.h"

/// Writing both marker forms, always from the same layout, so that they cannot disagree.
namespace mezzotint::checkpoint {

inline constexpr std::string_view kMarkerSuffix = "comfy_quant";
inline constexpr std::string_view kHeaderKey = "_quantization_metadata";

/// A JSON value with the separators of Python's json.dumps (", " and ": ").
std::string json_text(const nlohmann::ordered_json& value);

/// JSON text of `<layer>.comfy_quant`, e.g. {"format": "int8_tensorwise", "per_row": true}: the same separators as the
/// Python writers, so that files compare equal.
std::string marker_text(const formats::Layout& layout, bool full_precision_matrix_mult);

/// Value of the metadata entry `_quantization_metadata` for layers given as (name, marker text).
std::string header_text(std::span<const std::pair<std::string, std::string>> layers);

}  // namespace mezzotint::checkpoint
