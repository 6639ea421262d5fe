#include "mezzotint/adapter/file_keys.h"

#include <fmt/format.h>

#include <utility>

#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kCommonSuffixes[] = {
    {".alpha", kAlpha},
    {".dora_scale", kDoraScale},
    {".lora_magnitude_vector", kPeftMagnitude},
    {".lora_magnitude_vector.weight", kPeftMagnitude},
    {".diff_b", kBiasDiff},
    {".b_norm", kBiasDiff},
    {".lora_B.bias", kUpBias},
    {".lora_up.bias", kUpBias},
};

// Parts of names that tell adapters apart which nobody here can apply.
constexpr std::pair<std::string_view, std::string_view> kForeign[] = {
    {".lambda_layer", "T-LoRA"},
    {".p_layer.", "T-LoRA"},
    {".q_layer.", "T-LoRA"},
    {"vera_", "VeRA"},
    {".oft_R", "PEFT's OFT"},
    {".boft_", "PEFT's BOFT"},
    {".lora_embedding_", "PEFT's LoRA of an embedding"},
    {".oft_blocks.", "kohya's OFT of split layers"},
    {".hra_u", "HRA"},
    {".fourierft_", "FourierFT"},
    {".bone_", "Bone"},
    {".miss_", "MiSS"},
    {".randlora_", "RandLoRA"},
    {".ada_", "AdaLoRA"},
    {".lora_E", "AdaLoRA"},
    {".lokr_t1", "a core of LoKr's w1, which no program uses"},
    {".norm_out.to_", "an IP-Adapter"},
    {"ip_adapter.", "an IP-Adapter"},
    {"_hyper_", "a hypernetwork"},
};

// PEFT puts the adapter's name into keys of unmerged models: X.lora_A.NAME.weight, X.hada_w1_a.default.
std::pair<std::string, std::string> without_variant(std::string_view key) {
  for (const std::string_view stem : {".lora_A.", ".lora_B.", ".lora_magnitude_vector."}) {
    const size_t at = key.find(stem);
    if (at == std::string_view::npos) continue;
    const std::string_view rest = key.substr(at + stem.size());
    const size_t dot = rest.find('.');
    const std::string_view name = rest.substr(0, dot);
    if (name == "weight" || name == "bias") break;
    const std::string_view tail = dot == std::string_view::npos ? "" : rest.substr(dot);
    if (tail != ".weight" && tail != ".bias" && !tail.empty()) break;
    return {fmt::format("{}{}{}", key.substr(0, at), stem.substr(0, stem.size() - 1), tail),
            name == "default" ? "" : std::string(name)};
  }
  constexpr std::string_view kDefault = ".default";
  if (key.ends_with(kDefault)) key.remove_suffix(kDefault.size());
  return {std::string(key), ""};
}

}  // namespace

Key parse_key(std::string_view full) {
  auto [key, variant] = without_variant(full);
  const Suffix* longest = nullptr;
  const auto look_at = [&, &text = key](std::span<const Suffix> suffixes) {
    for (const Suffix& suffix : suffixes) {
      if (text.size() > suffix.text.size() && text.ends_with(suffix.text) &&
          (!longest || suffix.text.size() > longest->text.size()))
        longest = &suffix;
    }
  };
  look_at(kCommonSuffixes);
  for (const Algorithm* algorithm : all_algorithms()) look_at(algorithm->suffixes);
  if (!longest) return {std::string(full), "", ""};
  key.resize(key.size() - longest->text.size());
  return {std::move(key), std::move(variant), longest->role};
}

std::string foreign_reason(std::string_view key) {
  for (const auto& [part, name] : kForeign)
    if (key.find(part) != std::string_view::npos) return fmt::format("it looks like {}, which is not supported", name);
  return "";
}

}  // namespace mezzotint::adapter
