#pragma once
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/regex.h"
#include "mezzotint/formats/format.h"

/// Settings for single layers (--layer-config), a JSON object of convert_to_quant's shape:
///
///     {"_default": {"format": "int8"},
///      "double_blocks.0.img_attn.qkv": {"format": "float8_e4m3fn"},
///      "img_mlp\\.[02]$": {"format": "int8_blockwise", "block_size": 64},
///      "single_blocks\\.3[0-9]\\.": {"skip": true}}
///
/// Keys are layer names (no ".weight") or regexes over them; keys that start with "_" other than `_default`, and fields
/// that start with "_" inside an entry, are comments. Fields:
///
///   format                      as on the command line, options and all; absent or "" = no change for this layer
///   skip                        true keeps the layer in its dtype
///   scaling_mode                tensor, row or block: an option of the format, checked against what it really does
///   block_size, any other       options of the format
///   simple                      true = plain absmax, whatever --effort says
///   full_precision_matrix_mult  as --full-precision-matrix-mult
///
/// Which entry wins for a layer: the one whose key IS the layer's name; then the regex with the most literal
/// characters (letters, digits, '_', '-' and escaped or plain dots outside brackets; both branches of an alternation
/// count); then the first in the file. `_default` is for layers that no key matches, and changes the format only of
/// those that would be quantized anyway.
namespace mezzotint::convert {

struct LayerSettings {
  std::string key;  ///< as in the file
  bool skip = false;
  std::optional<formats::Selection> selection;  ///< absent for `skip`, or where only other fields are set
  std::optional<bool> simple;
  std::optional<bool> full_precision_matrix_mult;
};

class LayerConfig {
 public:
  /// `names` are the layer names of the model (with every prefix): a key that equals one of them is that layer and no
  /// regex. With `fullmatch`, regexes must match the whole name, else anywhere in it. `file` is used in messages only.
  /// Throws Error "bad-layer-config" (not JSON, an unknown field, a field of the wrong type, a key given twice, an
  /// option that the format lacks), "unknown-format", "bad-option" or "bad-regex".
  static LayerConfig parse(std::string_view json, std::span<const std::string> names, bool fullmatch,
                           const std::string& file = "layer config");

  /// The entry for a layer, or null. `name` is the full layer name; `inner` the same without component prefix (also
  /// tried; "" = the same).
  const LayerSettings* find(std::string_view name, std::string_view inner = {}) const;
  /// `_default`, or null.
  const LayerSettings* fallback() const { return default_ ? &*default_ : nullptr; }
  /// Keys that match none of `names`: typing errors, most likely.
  std::vector<std::string> unused(std::span<const std::string> names) const;

 private:
  struct Pattern {
    LayerSettings settings;
    Regex regex;
    size_t literals;
  };
  std::map<std::string, LayerSettings, std::less<>> exact_;
  std::vector<Pattern> patterns_;  ///< most literal characters first, then file order
  std::optional<LayerSettings> default_;
  bool fullmatch_ = false;
};

/// Literal characters of a pattern, the measure of how specific it is.
size_t literal_length(std::string_view pattern);

struct TemplateLayer {
  std::string name;
  Shape shape;
  std::string decision;  ///< what happens without a config, as a comment in the template
};

/// A layer config that names every layer, with shapes and decisions as comments. Loads back unedited as "no change".
std::string layer_config_template(std::span<const TemplateLayer> layers);

}  // namespace mezzotint::convert
