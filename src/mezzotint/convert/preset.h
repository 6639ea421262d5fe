#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/formats/format.h"
#include "mezzotint/io/tensor_info.h"

/// What is known about one architecture: how to recognise it and which of its layers stay in their dtype.
///
/// One file, one preset: convert/presets/NAME.cpp defines `extern const Preset preset_NAME`, and the build makes the
/// table. Presets never delete a tensor and never quantize what the structural rules (structural_reason) keep.
namespace mezzotint::convert {

/// The names and shapes of one component, its prefix taken off. Holds views: the tensors must outlive it.
class Keys {
 public:
  Keys(std::span<const io::TensorInfo> tensors, std::string_view prefix);

  bool has(std::string_view name) const { return find(name) != nullptr; }
  /// Whether any name starts with `stem`.
  bool any(std::string_view stem) const;
  /// Whether any name ends with `tail`.
  bool ends_with(std::string_view tail) const;
  /// Shape of a tensor, or null.
  const Shape* find(std::string_view name) const;
  /// Dimension `axis` of a tensor, or 0 where there is no such tensor or axis.
  int64_t dim(std::string_view name, size_t axis) const;
  /// n where `stem`0., `stem`1., ... `stem`(n-1). all exist: the number of blocks of a stack.
  size_t blocks(std::string_view stem) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string_view name;
    const Shape* shape;
  };
  std::vector<Entry> entries_;  ///< sorted by name
};

/// One way to recognise an architecture.
struct Signature {
  /// Names separated by spaces, every one of which must hold: "name" exists, "stem*" something starts with it, "!name"
  /// and "!stem*" must not be there.
  std::string_view names;
  std::string_view whose;  ///< ends the sentence "NAMES are WHOSE", e.g. "Wan's"; the whole sentence where names is ""
  int confidence = 100;    ///< 0..100; the highest wins. 100 = nothing else has these
  bool (*check)(const Keys& keys) = nullptr;  ///< a further condition on shapes, or null
};

/// A layer name (component prefix and ".weight" taken off) that matches as a whole, and why it is treated so. Patterns
/// are PCRE2 and anchored on both ends.
struct PresetRule {
  std::string_view pattern;
  std::string_view reason;  ///< a few words, e.g. "modulation", "first layer"
};

/// A norm with weights of its own and the layers that read what comes out of it, by the ends of their names within one
/// block: {"input_layernorm", "self_attn.q_proj self_attn.k_proj self_attn.v_proj"}. Readers are separated by spaces;
/// those that a model does not have do not count, but nothing else may read the norm. Its output must be proportional
/// to its weight (Gemma's norms multiply by 1 + weight). Only for models whose adapters nobody shares: an adapter that
/// was trained on the original does not fit a layer whose norm took over its smoothing factors.
struct NormReaders {
  std::string_view norm;
  std::string_view readers;
};

/// What kind of component an architecture is.
enum class Part : uint8_t { diffusion_model, text_encoder, vae, adapter, any };

struct Preset {
  std::string_view name;
  std::string_view summary;  ///< one line for `mezzotint presets`
  Part part;
  std::span<const std::string_view> aliases;  ///< other names people know it by
  std::span<const Signature> signatures;      ///< empty: chosen by name only
  /// Layers that stay in their dtype, first match first.
  std::span<const PresetRule> keep;
  /// Layers that are quantized although a generic name rule would keep them. `keep` wins over it.
  std::span<const PresetRule> quantize = {};
  /// All norms in front of quantized layers of a block. A block that has others is not this architecture's.
  std::span<const NormReaders> norms = {};
  /// Says which member of the family this is ("i2v, 40 blocks, width 5120"), or null.
  std::string (*variant)(const Keys& keys) = nullptr;
};

/// Every preset compiled in, in alphabetical order of the files.
std::span<const Preset* const> all_presets();

/// By name or alias; '-' and '_' are the same and case does not matter. Throws Error "unknown-preset" with suggestions.
const Preset& select_preset(std::string_view name);

/// The rules that hold for every architecture (and for unknown ones), by name.
std::span<const PresetRule> generic_rules();

/// What a tensor is used for, from its full name and its shape. A weight of rank 2 is an embedding where its name says
/// so and a linear layer otherwise; rank 3 is an expert bank under `.experts.`, else a convolution; what does not end
/// in
/// ".weight" is `other`.
formats::LayerKind classify_layer(std::string_view tensor, std::span<const int64_t> shape);

/// A preset's patterns and the generic ones, compiled. Cheap to copy, safe to use from several threads.
class PresetRules {
 public:
  enum class Source : uint8_t { structure, preset, generic };
  struct Kept {
    std::string reason;
    Source source;
  };

  explicit PresetRules(const Preset& preset);

  /// Why a layer stays in its dtype, or nothing where it is quantized. `layer` is the name without component prefix and
  /// without ".weight". The order: the preset's `keep`, its `quantize`, the generic rules.
  std::optional<Kept> keep_reason(std::string_view layer) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

/// Why a tensor cannot be quantized whatever it is called: not a float, not a ".weight", rank other than 2 (3 for
/// expert banks), empty.
std::optional<std::string> structural_reason(std::string_view tensor, std::span<const int64_t> shape, bool is_float);

/// Why a matrix is not worth quantizing unless somebody asks for it by name: a side below kSmallestSide.
inline constexpr int64_t kSmallestSide = 16;
std::optional<std::string> too_small_reason(std::span<const int64_t> shape);

}  // namespace mezzotint::convert
