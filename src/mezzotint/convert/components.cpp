#include "mezzotint/convert/components.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/detect.h"

namespace mezzotint::convert {
namespace {

struct KnownPrefix {
  std::string_view prefix;
  std::string_view name;
  bool numbered = false;  ///< the next segment belongs to the prefix and the name
};

// Longer prefixes first where one starts another.
constexpr KnownPrefix kKnown[] = {
    {"model.diffusion_model.", "diffusion_model"},
    {"diffusion_model.", "diffusion_model"},
    {"first_stage_model.", "vae"},
    {"pretransform.model.", "vae"},
    {"vae.", "vae"},
    {"audio_vae.", "audio_vae"},
    {"vocoder.", "vocoder"},
    {"cond_stage_model.", "text_encoder"},
    {"conditioner.embedders.", "text_encoder.", true},
    {"conditioner.main_image_encoder.", "clip_vision"},
    {"conditioner.conditioners.", "conditioner.", true},
    {"text_encoders.", "text_encoders.", true},
    {"text_encoder.", "text_encoder"},
    {"text_encoder_2.", "text_encoder_2"},
    {"text_encoder_3.", "text_encoder_3"},
    {"text_embedding_projection.", "text_projection"},
    {"clip_vision.", "clip_vision"},
    {"clip_l_vision.", "clip_vision"},
    {"image_encoder.", "clip_vision"},
    {"embedder.model.visual.", "clip_vision"},
    {"control_model.", "controlnet"},
    {"model_ema.", "ema"},
};

// In odd merges these hold the diffusion model; in bare files they may be a part of anything.
constexpr std::string_view kMergePrefixes[] = {"model.model.", "transformer.", "unet.", "net.", "model."};

struct Claim {
  std::string name, prefix;
};

Claim claim(std::string_view tensor) {
  for (const KnownPrefix& known : kKnown) {
    if (!tensor.starts_with(known.prefix)) continue;
    if (!known.numbered) return {std::string(known.name), std::string(known.prefix)};
    const size_t dot = tensor.find('.', known.prefix.size());
    if (dot == std::string_view::npos) continue;
    const std::string_view segment = tensor.substr(known.prefix.size(), dot - known.prefix.size());
    return {fmt::format("{}{}", known.name, segment), std::string(tensor.substr(0, dot + 1))};
  }
  return {"", ""};
}

std::string_view part_name(Part part) {
  switch (part) {
    case Part::text_encoder:
      return "text_encoder";
    case Part::vae:
      return "vae";
    case Part::adapter:
      return "adapter";
    case Part::diffusion_model:
    case Part::any:
      return "diffusion_model";
  }
  return "other";
}

}  // namespace

std::vector<Component> find_components(std::span<const io::TensorInfo> tensors) {
  std::vector<Component> components;
  std::map<std::string, size_t, std::less<>> by_prefix;
  std::vector<io::TensorInfo> unclaimed;
  const auto add = [&](const Claim& owner, const io::TensorInfo& tensor) {
    const auto [at, fresh] = by_prefix.try_emplace(owner.prefix, components.size());
    if (fresh) components.push_back({owner.name, owner.prefix});
    ++components[at->second].tensors;
    components[at->second].bytes += tensor.bytes;
  };
  for (const io::TensorInfo& tensor : tensors) {
    const Claim owner = claim(tensor.name);
    add(owner, tensor);
    if (owner.prefix.empty()) unclaimed.push_back(tensor);
  }
  if (unclaimed.empty()) return components;

  const bool has_model =
      std::ranges::any_of(components, [](const Component& c) { return c.name == "diffusion_model"; });
  const size_t rest = by_prefix.find("")->second;
  // A merge that puts its model under a prefix of its own, with other components beside it.
  if (!has_model && components.size() > 1) {
    for (const std::string_view prefix : kMergePrefixes) {
      const auto inside = [&](const io::TensorInfo& tensor) { return tensor.name.starts_with(prefix); };
      const auto count = static_cast<size_t>(std::ranges::count_if(unclaimed, inside));
      if (count <= 5 || detect(unclaimed, prefix).preset->part == Part::text_encoder) continue;
      Component model{"diffusion_model", std::string(prefix)};
      for (const io::TensorInfo& tensor : unclaimed) {
        if (!inside(tensor)) continue;
        ++model.tensors;
        model.bytes += tensor.bytes;
      }
      components[rest].tensors -= model.tensors;
      components[rest].bytes -= model.bytes;
      if (components[rest].tensors == 0) {
        components[rest] = model;
      } else {
        components[rest].name = "other";
        components.insert(components.begin() + static_cast<std::ptrdiff_t>(rest), model);
      }
      return components;
    }
  }
  if (has_model) {
    components[rest].name = "other";
  } else {
    components[rest].name = part_name(detect(unclaimed).preset->part);
  }
  return components;
}

ComponentName split_component(std::string_view tensor) {
  const Claim owner = claim(tensor);
  std::string_view inner = tensor.substr(owner.prefix.size());
  for (bool stripped = true; stripped;) {
    stripped = false;
    for (const std::string_view prefix : kMergePrefixes) {
      if (!inner.starts_with(prefix)) continue;
      inner.remove_prefix(prefix.size());
      stripped = true;
    }
  }
  return {owner.name, inner};
}

size_t component_of(std::span<const Component> components, std::string_view tensor) {
  size_t best = components.size();
  for (size_t i = 0; i < components.size(); ++i) {
    if (!tensor.starts_with(components[i].prefix)) continue;
    if (best == components.size() || components[i].prefix.size() > components[best].prefix.size()) best = i;
  }
  return best;
}

std::vector<size_t> select_components(std::span<const Component> components, std::string_view wanted) {
  std::vector<size_t> chosen;
  for (size_t i = 0; i < components.size(); ++i) {
    const std::string_view name = components[i].name;
    if (wanted == "all" || name == wanted || (wanted.empty() && name == "diffusion_model")) chosen.push_back(i);
  }
  if (chosen.empty() && wanted.empty() && components.size() == 1) chosen.push_back(0);
  if (!chosen.empty() || components.empty()) return chosen;
  std::string names;
  for (const Component& c : components) names += fmt::format("{}{}", names.empty() ? "" : ", ", c.name);
  if (wanted.empty()) {
    throw Error({.name = "no-default-component",
                 .problem = "the file holds several components and none of them is a diffusion model",
                 .found = names,
                 .advice = "Say which to quantize with --component NAME, or --component all"});
  }
  throw Error({.name = "unknown-component",
               .problem = fmt::format("the file has no component '{}'", wanted),
               .found = names,
               .advice = "--component takes one of these names, or 'all'"});
}

}  // namespace mezzotint::convert
