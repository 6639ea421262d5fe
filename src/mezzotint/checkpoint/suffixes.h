#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Names of the tensors beside a weight, in today's and in older dialects.
namespace mezzotint::checkpoint {

inline constexpr std::string_view kDotWeight = ".weight";  ///< what a weight is called behind its layer
inline constexpr std::string_view kInputScale = "input_scale";
inline constexpr std::string_view kPreQuantScale = "pre_quant_scale";
inline constexpr std::string_view kFileMarker = "scaled_fp8";  ///< of a whole file or prefix, in the legacy dialect

/// "a.b.weight" -> {"a.b", "weight"}; a name without a dot has an empty layer.
std::pair<std::string_view, std::string_view> split_name(std::string_view tensor);

/// \"a.b.weight\" -> \"a.b\"; any other tensor is its own layer.
std::string layer_name(const std::string& tensor);

/// Today's spelling of a suffix: "scale_weight" -> "weight_scale", "scale_input" -> "input_scale".
std::string_view canonical_suffix(std::string_view suffix);

/// Whether a suffix (in today's spelling) is a parameter of any format compiled in, an activation scale, or a marker:
/// found beside a weight that is not quantized, such a tensor is an orphan.
bool is_quantization_suffix(std::string_view suffix);

}  // namespace mezzotint::checkpoint
