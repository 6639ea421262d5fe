#include "mezzotint/adapter/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace mezzotint::adapter {
namespace {

// Longer ones first where one starts another. A '*' is one segment.
constexpr std::string_view kPartPrefixes[] = {
    "model.diffusion_model.",
    "diffusion_model.",
    "text_encoders.*.transformer.",
    "text_encoders.*.",
    "conditioner.embedders.*.transformer.",
    "conditioner.embedders.*.model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "first_stage_model.",
    "vae.",
    "audio_vae.",
    "vocoder.",
};

// Wrappers of files that hold nothing but a diffusion model.
constexpr std::string_view kWrappers[] = {"transformer.", "unet.", "net.", "model."};

std::string part_prefix(std::string_view tensor) {
  for (const std::string_view pattern : kPartPrefixes) {
    const size_t star = pattern.find('*');
    if (star == std::string_view::npos) {
      if (tensor.starts_with(pattern)) return std::string(pattern);
      continue;
    }
    if (!tensor.starts_with(pattern.substr(0, star))) continue;
    const size_t dot = tensor.find('.', star);
    const std::string_view tail = pattern.substr(star + 1);
    if (dot != std::string_view::npos && tensor.substr(dot).starts_with(tail))
      return std::string(tensor.substr(0, dot + tail.size()));
  }
  return "";
}

PartKind clip_kind(int64_t width) {
  return width == 768 ? PartKind::clip_l : width == 1280 ? PartKind::clip_g : PartKind::clip_h;
}

PartKind kind_of(std::string_view prefix, const Names& names) {
  if (prefix.ends_with("diffusion_model.")) return PartKind::diffusion;
  if (prefix == "first_stage_model." || prefix == "vae." || prefix == "audio_vae." || prefix == "vocoder.")
    return PartKind::other;
  if (prefix.find("clip_l") != std::string_view::npos) return PartKind::clip_l;
  if (prefix.find("clip_g") != std::string_view::npos) return PartKind::clip_g;
  if (prefix.find("clip_h") != std::string_view::npos) return PartKind::clip_h;
  if (names.any("text_model.encoder.layers.0."))
    return clip_kind(names.dim("text_model.encoder.layers.0.self_attn.q_proj", 1));
  if (names.any("transformer.resblocks.0.")) return clip_kind(names.dim("transformer.resblocks.0.attn.out_proj", 1));
  if (names.any("encoder.block.0.layer.")) return PartKind::t5;
  if (names.any("model.layers.0.self_attn.") || names.any("model.embed_tokens.")) return PartKind::language_model;
  return prefix.empty() ? PartKind::diffusion : PartKind::other;
}

// Where everything stands behind one wrapper, that is the prefix.
void unwrap(ModelPart& part) {
  for (const std::string_view wrapper : kWrappers) {
    const auto& all = part.names.all();
    if (!std::ranges::all_of(all, [&](const auto& entry) { return entry.first.starts_with(wrapper); })) continue;
    Names inner;
    for (const auto& [name, shape] : all) inner.add(name.substr(wrapper.size()), shape);
    part.names = std::move(inner);
    part.prefix += wrapper;
    return;
  }
}

bool has_kind(const std::vector<ModelPart>& parts, PartKind kind) {
  return std::ranges::find(parts, kind, &ModelPart::kind) != parts.end();
}

// n of lora_te<n> and text_encoder_<n> (1 has none).
void add_encoder(Prefixes& prefixes, int n) {
  prefixes.underscored.push_back(fmt::format("lora_te{}_", n));
  prefixes.dotted.push_back(n == 1 ? "text_encoder." : fmt::format("text_encoder_{}.", n));
}

void add_t5(Prefixes& prefixes, bool clip_l, bool clip_g) {
  add_encoder(prefixes, 1 + (clip_l ? 1 : 0) + (clip_g ? 1 : 0));
  if (clip_l && !clip_g) add_encoder(prefixes, 3);  // some trainers count SD3's encoders
}

}  // namespace

std::vector<ModelPart> find_parts(const checkpoint::Model& model) {
  using checkpoint::Role;
  Names names;
  const std::vector<io::TensorInfo>& tensors = model.source().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Role role = model.role(i);
    if (role == Role::plain) names.add(tensors[i].name, tensors[i].shape);
    if (role == Role::codes) names.add(tensors[i].name, model.layers()[model.layer_of(i)].layout.shape);
  }
  return find_parts(names);
}

std::vector<ModelPart> find_parts(const Names& tensors) {
  std::vector<ModelPart> parts;
  std::map<std::string, size_t> index;
  for (const auto& [name, shape] : tensors.all()) {
    const std::string prefix = part_prefix(name);
    const auto [at, fresh] = index.try_emplace(prefix, parts.size());
    if (fresh) parts.push_back({PartKind::other, prefix, {}});
    parts[at->second].names.add(name.substr(prefix.size()), shape);
  }
  for (ModelPart& part : parts) {
    part.kind = kind_of(part.prefix, part.names);
    if (part.kind == PartKind::diffusion && part.prefix.empty() && parts.size() == 1) unwrap(part);
  }
  return parts;
}

Prefixes adapter_prefixes(const ModelPart& part, const std::vector<ModelPart>& all) {
  Prefixes prefixes;
  const bool clip_l = has_kind(all, PartKind::clip_l), clip_g = has_kind(all, PartKind::clip_g);
  prefixes.dotted.push_back(part.prefix);
  if (all.size() == 1) prefixes.dotted.emplace_back("");
  if (part.kind != PartKind::diffusion && part.kind != PartKind::other) {
    prefixes.dotted.emplace_back("text_encoders.transformer.");
    if (all.size() == 1) prefixes.dotted.emplace_back("text_encoders.");
  }
  switch (part.kind) {
    case PartKind::diffusion:
      for (const char* prefix :
           {"", "diffusion_model.", "model.diffusion_model.", "transformer.", "unet.", "base_model.model.",
            "unet.base_model.model.", "transformer.base_model.model.", "base_model.model.diffusion_model."})
        prefixes.dotted.emplace_back(prefix);
      prefixes.underscored = {"lora_unet_", "lycoris_", "lora_transformer_", "lora_prior_unet_"};
      break;
    case PartKind::clip_l:
    case PartKind::clip_h:
      prefixes.underscored = {"lora_te_"};
      prefixes.dotted.emplace_back("text_encoders.clip_l.transformer.");
      add_encoder(prefixes, 1);
      break;
    case PartKind::clip_g:
      prefixes.underscored = {"lora_te2_", "lora_prior_te_"};
      if (!clip_l) prefixes.underscored.emplace_back("lora_te_");
      prefixes.dotted.emplace_back("text_encoders.clip_g.transformer.");
      add_encoder(prefixes, clip_l ? 2 : 1);
      break;
    case PartKind::t5:
      prefixes.dotted.emplace_back("text_encoders.t5xxl.transformer.");
      add_t5(prefixes, clip_l, clip_g);
      if (all.size() == 1) {  // a file of its own: whatever its place in the model
        add_encoder(prefixes, 2);
        add_encoder(prefixes, 3);
      }
      break;
    case PartKind::language_model:
      prefixes.underscored = {"lora_te_", "lora_te1_"};
      prefixes.dotted.emplace_back("text_encoder.");
      break;
    case PartKind::other:
      break;
  }
  for (std::vector<std::string>* list : {&prefixes.dotted, &prefixes.underscored}) {
    std::ranges::sort(*list, [](const std::string& a, const std::string& b) {
      return a.size() != b.size() ? a.size() > b.size() : a < b;
    });
    const auto repeated = std::ranges::unique(*list);
    list->erase(repeated.begin(), repeated.end());
  }
  return prefixes;
}

}  // namespace mezzotint::adapter
