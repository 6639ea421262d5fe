#include "mezzotint/convert/preset.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "mezzotint/base/edit_distance.h"
#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/regex.h"

namespace mezzotint::convert {
namespace {

std::string canonical(std::string_view name) {
  std::string text(name);
  for (char& c : text) c = c == '-' || c == '.' || c == ' ' ? '_' : static_cast<char>(std::tolower(c & 0xff));
  return text;
}

bool is_segment(std::string_view name, std::string_view segment) {
  for (size_t at = name.find(segment); at != std::string_view::npos; at = name.find(segment, at + 1)) {
    const bool starts = at == 0 || name[at - 1] == '.';
    const size_t end = at + segment.size();
    if (starts && (end == name.size() || name[end] == '.')) return true;
  }
  return false;
}

// Names of embedding tables: the last segment of the layer. A table is looked up, not multiplied.
constexpr std::string_view kTables =
    R"((?:.*\.)?(?:shared|wte|wpe|embed|embed_tokens(?:_per_layer)?|tok_embeddings|(?:token|word|position|token_type|segment|class|type|relative_position|relative_attention)_(?:embedding|embeddings|embed|bias)|(?:pos|position)_embed(?:ding)?s?|cond_type_embed(?:ding)?|embed_image_indicator|trainable_cond_mask|embeddings))";

// Rules for every architecture, by name. Single segments are matched as a whole, and only at the top level where a word
// such as "proj_out" means something else deeper down.
constexpr PresetRule kGeneric[] = {
    {kTables, "embedding table"},
    {R"((?:.*\.)?(?:pos_embed|pos_emb\w*|position_embedding_table|positional_embedding|positional_encoding|rope\w*|inv_freq))",
     "position table"},
    {R"((?:.*\.)?(?:\w+_)?(?:layer_?|rms_?|group_?)?norm(?:\d+|_(?:added_)?[qkv](?:_img)?)?|(?:.*\.)?ln(?:_?\d+|_pre|_post|_f|_final|_q|_k)?)",
     "norm"},
    {R"((?:.*\.)?(?i:(?:\w+_)?(?:mod|modulation|adaln|adaln_\w+|ada_ln\w*|scale_shift_table))(?:\.(?:lin|linear|proj|\d+))*)",
     "modulation"},
    {R"((?:.*\.)?(?i:\w*modulation_\w+|\w*_adaln\w*)(?:\.(?:lin|linear|proj|\d+))*)", "modulation"},
    {R"((?:.*\.)?(?:\w+_)?norm\d*(?:_(?:context|out|added|self|cross))?\.linear(?:_\d)?)", "modulation"},
    {R"((?:.*\.)?(?:\w+_)?(?:t_embedder|timestep_embedder|time_embedder|time_embedding|time_embeddings|timestep_embed|time_embed|time_emb_proj|time_projection|time_proj|time_text_embed|time_guidance_embed)(?:\..*)?)",
     "time embedding"},
    {R"((?:time|time_r|timestep|t|guidance|vector|pooled|y|label|class|size|add|style|extra)_(?:in|embedder|embedding|embed|emb|proj)(?:\..*)?)",
     "embedding of conditions"},
    {R"((?:txt|text|context|caption|cap|cond|condition|llm|clip|t5|y|byt5|text_feat)_(?:in|proj|projection|embedder|embedding|embed|emb|cond_proj|input_proj)(?:\.(?:\d+|proj|linear|linear_\d|fc\d|in_layer|out_layer|mlp\.\d))*)",
     "text input"},
    {R"((?:(?:img|x|video|audio|image|latent|visual|pixel)_(?:in|embedder|embedding|embed|patch_embed|patch_proj|embeddings)|(?:audio_|video_)?patchify_proj|patch_embed(?:der|ding)?|input_proj|proj_in|conv_in|in_proj|first|input_blocks\.0\.0)(?:\.(?:\d+|proj|projection|linear|linear_\d|in_layer))*)",
     "first layer"},
    {R"((?:.*\.)?(?:patch_embed|patch_embedding|patch_embedder|patch_embeddings)(?:\.(?:proj|projection|\d+))?)",
     "first layer"},
    {R"((?:final_layer|final_proj|final_linear|final|norm_out|(?:audio_|video_)?proj_out|conv_out|out_proj|output_proj|out_layer|last|last_layer|head|out)(?:\..*)?)",
     "last layer"},
    {R"((?:.*\.)?(?:lm_head|classifier|score|text_projection|logit_scale))", "last layer"},
};

}  // namespace

Keys::Keys(std::span<const io::TensorInfo> tensors, std::string_view prefix) {
  entries_.reserve(tensors.size());
  for (const io::TensorInfo& tensor : tensors) {
    const std::string_view name = tensor.name;
    if (name.starts_with(prefix)) entries_.push_back({name.substr(prefix.size()), &tensor.shape});
  }
  std::ranges::sort(entries_, {}, &Entry::name);
}

bool Keys::any(std::string_view stem) const {
  const auto at = std::ranges::lower_bound(entries_, stem, {}, &Entry::name);
  return at != entries_.end() && at->name.starts_with(stem);
}

bool Keys::ends_with(std::string_view tail) const {
  return std::ranges::any_of(entries_, [&](const Entry& entry) { return entry.name.ends_with(tail); });
}

const Shape* Keys::find(std::string_view name) const {
  const auto at = std::ranges::lower_bound(entries_, name, {}, &Entry::name);
  return at != entries_.end() && at->name == name ? at->shape : nullptr;
}

int64_t Keys::dim(std::string_view name, size_t axis) const {
  const Shape* shape = find(name);
  return shape && axis < shape->size() ? (*shape)[axis] : 0;
}

size_t Keys::blocks(std::string_view stem) const {
  size_t count = 0;
  while (any(fmt::format("{}{}.", stem, count))) ++count;
  return count;
}

const Preset& select_preset(std::string_view wanted) {
  const std::string name = canonical(wanted);
  for (const Preset* preset : all_presets()) {
    if (name == preset->name || std::ranges::find(preset->aliases, name) != preset->aliases.end()) return *preset;
  }
  std::string_view nearest;
  size_t best = 1 + name.size() / 3;  // farther than that is no misspelling
  std::string names;
  for (const Preset* preset : all_presets()) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", preset->name);
    const auto consider = [&](std::string_view candidate) {
      if (const size_t d = edit_distance(name, candidate); d <= best && (d < best || nearest.empty())) {
        best = d;
        nearest = candidate;
      }
    };
    consider(preset->name);
    for (const std::string_view alias : preset->aliases) consider(alias);
  }
  throw Error({.name = "unknown-preset",
               .problem = fmt::format("there is no preset '{}'", wanted),
               .expected = "one of " + names,
               .advice = nearest.empty() ? "Leave --preset out to have the architecture detected"
                                         : fmt::format("Did you mean '{}'?", nearest)});
}

std::span<const PresetRule> generic_rules() {
  return kGeneric;
}

formats::LayerKind classify_layer(std::string_view tensor, std::span<const int64_t> shape) {
  using checkpoint::kDotWeight;
  using formats::LayerKind;
  if (!tensor.ends_with(kDotWeight)) return LayerKind::other;
  const std::string_view layer = tensor.substr(0, tensor.size() - kDotWeight.size());
  if (shape.size() == 2) {
    static const Regex table(kTables);
    return table.fullmatch(layer) ? LayerKind::embedding : LayerKind::linear;
  }
  if (shape.size() == 3 && is_segment(layer, "experts")) return LayerKind::expert_bank;
  return shape.size() >= 3 && shape.size() <= 5 ? LayerKind::convolution : LayerKind::other;
}

std::optional<std::string> structural_reason(std::string_view tensor, std::span<const int64_t> shape, bool is_float) {
  using formats::LayerKind;
  if (!is_float) return "not floating point";
  if (shape.size() < 2) return shape.empty() ? "a single number" : "one-dimensional";
  switch (classify_layer(tensor, shape)) {
    case LayerKind::other:
      return tensor.ends_with(".weight") ? "not a matrix" : "not a layer's weight";
    case LayerKind::convolution:
      return "convolution";
    case LayerKind::linear:
    case LayerKind::embedding:
    case LayerKind::expert_bank:
      break;
  }
  for (const int64_t side : shape) {
    if (side == 0) return "empty";
  }
  return std::nullopt;
}

std::optional<std::string> too_small_reason(std::span<const int64_t> shape) {
  for (const int64_t side : shape.last(std::min<size_t>(shape.size(), 2))) {
    if (side < kSmallestSide) return fmt::format("too small (a side of {})", side);
  }
  return std::nullopt;
}

struct PresetRules::Compiled {
  struct Rule {
    Regex regex;
    std::string_view reason;
  };
  std::vector<Rule> keep, quantize, generic;

  static std::vector<Rule> compile(std::span<const PresetRule> rules) {
    std::vector<Rule> compiled;
    compiled.reserve(rules.size());
    for (const PresetRule& rule : rules) compiled.push_back({Regex(rule.pattern), rule.reason});
    return compiled;
  }
  static const Rule* first(const std::vector<Rule>& rules, std::string_view layer) {
    const auto at = std::ranges::find_if(rules, [&](const Rule& rule) { return rule.regex.fullmatch(layer); });
    return at == rules.end() ? nullptr : &*at;
  }
};

PresetRules::PresetRules(const Preset& preset) {
  auto compiled = std::make_shared<Compiled>();
  compiled->keep = Compiled::compile(preset.keep);
  compiled->quantize = Compiled::compile(preset.quantize);
  compiled->generic = Compiled::compile(kGeneric);
  compiled_ = std::move(compiled);
}

std::optional<PresetRules::Kept> PresetRules::keep_reason(std::string_view layer) const {
  if (const auto* rule = Compiled::first(compiled_->keep, layer))
    return Kept{std::string(rule->reason), Source::preset};
  if (Compiled::first(compiled_->quantize, layer)) return std::nullopt;
  if (const auto* rule = Compiled::first(compiled_->generic, layer)) {
    return Kept{std::string(rule->reason), Source::generic};
  }
  return std::nullopt;
}

}  // namespace mezzotint::convert
