#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/layer_config.h"
#include "mezzotint/convert/preset.h"

/// Whether and how each layer is quantized. What decides, first to last:
///
///   1. structure      what is not a float matrix (or expert bank) is never quantized
///   2. layer config   the entry that wins for the layer (layer_config.h); beats everything below
///   3. --exclude      keeps the layer; beats --include, so that "all but these" can be said
///   4. --include      quantizes it, whatever the rules below say
///   5. smallness      a matrix with a side below 16 is not worth a scale
///   6. preset         the architecture's `keep` and `quantize` rules
///   7. generic rules  first and last layers, embeddings, norms, modulation (generic_rules)
///   8. otherwise      quantized; `_default` of the layer config may change the format, or keep it
namespace mezzotint::convert {

enum class DecidedBy : uint8_t { structure, layer_config, exclude, include, preset, generic, otherwise };

struct LayerDecision {
  bool quantize = false;
  DecidedBy by = DecidedBy::otherwise;
  std::string reason;                           ///< one clause, e.g. "modulation (preset wan)"
  std::optional<formats::Selection> selection;  ///< format for this layer; absent = the run's own
  std::optional<bool> simple;                   ///< true = plain absmax although --effort says more
  std::optional<bool> full_precision_matrix_mult;
};

struct RuleOptions {
  const Preset* preset = nullptr;  ///< null = neither preset nor generic rules (--preset none)
  std::string prefix;              ///< what to take off names before the preset's patterns see them (Detection::prefix)
  std::vector<std::string> include, exclude;  ///< regexes, searched in the full name with and without ".weight"
  std::optional<LayerConfig> layer_config;
};

/// The rules of one component. Immutable; safe to use from several threads.
class LayerRules {
 public:
  /// Throws Error "bad-regex".
  explicit LayerRules(RuleOptions options);

  /// `tensor` is the full name of a weight (with ".weight"), `shape` its logical shape (of a quantized layer: what it
  /// decodes to), `is_float` whether it holds or decodes to floating point.
  LayerDecision decide(std::string_view tensor, std::span<const int64_t> shape, bool is_float) const;

 private:
  LayerDecision decide_without_config(std::string_view tensor, std::string_view layer, std::string_view inner,
                                      std::span<const int64_t> shape) const;

  RuleOptions options_;
  std::vector<Regex> include_, exclude_;
  std::optional<PresetRules> preset_;
};

}  // namespace mezzotint::convert
