#include "mezzotint/adapter/key_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <map>
#include <set>

#include "mezzotint/adapter/parts.h"
#include "mezzotint/adapter/stack.h"
#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::adapter {
namespace {

std::string with_underscores(std::string name) {
  std::ranges::replace(name, '.', '_');
  return name;
}

// What an adapter calls the layer that holds this tensor. Biases go with their weights, but some files name them whole.
std::vector<std::string> layer_names(const std::string& tensor) {
  std::vector<std::string> names = {checkpoint::layer_name(tensor)};
  if (tensor.ends_with(".scale")) names.emplace_back(tensor.substr(0, tensor.size() - 6));  // norms of Flux
  return names;
}

bool is_for_text_encoder(std::string_view target) {
  return target.starts_with("lora_te") || target.starts_with("text_encoder") || target.starts_with("lora_prior_te");
}

}  // namespace

// Names of the checkpoint come before other names for the same; among equals, two meanings are none.
void KeyMap::Space::add(const std::string& name, const Target& target, bool own) {
  const auto put = [&](auto& map, const std::string& key) {
    const auto [at, fresh] = map.try_emplace(key, Meaning{target, own});
    if (!fresh && at->second.own == own && at->second.target != target) at->second.target.reset();
  };
  put(by_dots, name);
  put(by_underscores, with_underscores(name));
}

std::optional<Target> KeyMap::Space::find(std::string_view target) const {
  const auto look_up = [](const auto& map, const std::string& key) -> std::optional<Target> {
    const auto found = map.find(key);
    return found == map.end() ? std::nullopt : found->second.target;
  };
  for (const std::string& prefix : dotted) {
    if (!target.starts_with(prefix)) continue;
    std::string name(target.substr(prefix.size()));
    if (auto found = look_up(by_dots, name)) return found;
    // diffusers' attention processors
    constexpr std::string_view kProcessor = ".processor.";
    if (const size_t at = name.find(kProcessor); at != std::string::npos) name.replace(at, kProcessor.size(), ".");
    if (auto found = look_up(by_dots, name)) return found;
    if (!name.ends_with(".to_out")) continue;
    if (auto found = look_up(by_dots, name + ".0")) return found;
  }
  for (const std::string& prefix : underscored) {
    if (!target.starts_with(prefix)) continue;
    if (auto found = look_up(by_underscores, std::string(target.substr(prefix.size())))) return found;
  }
  return std::nullopt;
}

KeyMap::KeyMap(const checkpoint::Model& model) : model_(&model) {
  add_parts(find_parts(model));
}

KeyMap::KeyMap(const Names& tensors) {
  add_parts(find_parts(tensors));
}

void KeyMap::add_parts(const std::vector<ModelPart>& parts) {
  for (const ModelPart& part : parts) {
    Space& space = spaces_.emplace_back();
    Prefixes prefixes = adapter_prefixes(part, parts);
    space.dotted = std::move(prefixes.dotted);
    space.underscored = std::move(prefixes.underscored);
    has_text_encoder_ |= part.kind != PartKind::diffusion && part.kind != PartKind::other;
    for (const auto& [tensor, shape] : part.names.all())
      for (const std::string& name : layer_names(tensor)) space.add(name, {part.prefix + name, 0, 0, false}, true);
    for (const Family* family : all_families()) {
      if (!family->fits(part.names)) continue;
      families_.emplace_back(family->name);
      Aliases aliases(part.names);
      family->add(part.names, aliases);
      for (auto [name, target] : aliases.all()) {
        target.layer.insert(0, part.prefix);
        space.add(name, target, false);
      }
    }
  }
}

std::optional<Target> KeyMap::find(std::string_view target) const {
  std::optional<Target> found;
  for (const Space& space : spaces_) {
    const std::optional<Target> here = space.find(target);
    if (!here) continue;
    if (found && *found != *here) return std::nullopt;
    found = here;
  }
  return found;
}

size_t KeyMap::tensor(const Target& target, Parameter parameter) const {
  assert(model_ != nullptr);
  const io::Source& source = model_->source();
  const auto first_of = [&](std::initializer_list<const char*> suffixes) {
    for (const char* suffix : suffixes)
      if (const size_t at = source.find(target.layer + suffix); at != io::Source::npos) return at;
    return io::Source::npos;
  };
  return parameter == Parameter::bias ? first_of({".bias", "_bias"}) : first_of({".weight", "_weight", "", ".scale"});
}

std::string KeyMap::match_one(const Patch& patch, Match& match) const {
  using checkpoint::Role;
  const std::optional<Target> target = find(patch.target);
  if (!target) {
    return is_for_text_encoder(patch.target) && !has_text_encoder_
               ? "it is for a text encoder, which the model is without"
               : "the model has no layer of this name";
  }
  match.target = *target;
  match.tensor = tensor(*target, patch.parameter);
  if (match.tensor == io::Source::npos)
    return patch.parameter == Parameter::bias ? "the layer has no bias" : "the layer has no weight";
  const io::TensorInfo& info = model_->source().tensors()[match.tensor];
  match.shape = info.shape;
  if (model_->role(match.tensor) == Role::codes) {
    match.layer = model_->layer_of(match.tensor);
    match.shape = model_->layers()[match.layer].layout.shape;
    if (!model_->layers()[match.layer].consistent) return "the layer's parameters do not fit its codes";
  } else if (!facts(info.dtype).is_float || model_->is_foreign(match.tensor)) {
    return "the layer is stored in a format that is not known here";
  }
  try {
    return misfit(patch, Stack(match.shape).shape_of(*target));
  } catch (const Error& error) {  // rows that the tensor does not have
    return error.info().problem;
  }
}

Matching KeyMap::match(const AdapterFile& file) const {
  Matching matching;
  matching.families = families_;
  for (size_t i = 0; i < file.patches().size(); ++i) {
    Match match;
    match.patch = i;
    std::string reason = match_one(file.patches()[i], match);
    if (reason.empty()) {
      matching.matches.push_back(std::move(match));
    } else {
      matching.unmatched.push_back({i, std::move(reason)});
    }
  }
  return matching;
}

std::string summary(const AdapterFile& file, const Matching& matching) {
  std::map<std::string_view, size_t> algorithms;
  std::set<size_t> tensors;
  for (const Match& match : matching.matches) {
    const Patch& patch = file.patches()[match.patch];
    ++algorithms[patch.algorithm->name];
    tensors.insert(match.tensor);
  }
  std::string counts;
  for (const auto& [name, count] : algorithms)
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, name);
  std::string text = fmt::format("{}: {} of {} patches{} on {} tensors",
                                 file.source().files().front().filename().string(), matching.matches.size(),
                                 file.patches().size(), counts.empty() ? "" : " (" + counts + ")", tensors.size());
  struct Kind {
    size_t count = 0;
    std::string example;
  };
  std::map<std::string, Kind> left_out;
  const auto count = [&](const std::string& reason, const std::string& example) {
    Kind& kind = left_out[reason];
    if (kind.count++ == 0) kind.example = example;
  };
  for (const UnmatchedPatch& patch : matching.unmatched) count(patch.reason, file.patches()[patch.patch].target);
  for (const UnusedKey& key : file.unused()) count(key.reason, key.key);
  for (const auto& [reason, kind] : left_out)
    text += fmt::format("\n  {} left out: {} ({}{})", kind.count, reason, kind.count > 1 ? "e.g. " : "", kind.example);
  return text;
}

void require_all(const AdapterFile& file, const Matching& matching) {
  if (matching.unmatched.empty() && file.unused().empty()) return;
  const bool patch = !matching.unmatched.empty();
  throw Error({.name = "unmatched-adapter-keys",
               .problem = fmt::format("{} patches have no place in the model and {} keys are part of none",
                                      matching.unmatched.size(), file.unused().size()),
               .file = file.source().files().front().string(),
               .tensor = patch ? file.patches()[matching.unmatched[0].patch].target : file.unused()[0].key,
               .found = patch ? matching.unmatched[0].reason : file.unused()[0].reason,
               .advice = "Without strict matching they are left out."});
}

}  // namespace mezzotint::adapter
