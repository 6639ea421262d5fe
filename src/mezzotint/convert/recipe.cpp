#include "mezzotint/convert/recipe.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/base/json_depth.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kVersion = 1;

// Entries of headers that earlier versions wrote.
constexpr std::string_view kOldRecipeKey = "mezzotint_recipe";
constexpr std::string_view kOldVersionKey = "mezzotint_version";

[[noreturn]] void bad(const std::string& problem, const std::string& found) {
  throw Error({.name = "bad-recipe",
               .problem = problem,
               .found = found,
               .advice = "Write one with `mezzotint plan --save-recipe FILE`."});
}

// Every option once: its name in the file, how to write it if it differs from the default, how to read it.
struct Field {
  const char* name;
  std::function<void(const ConvertOptions&, ordered_json&)> write;
  std::function<void(ConvertOptions&, const json&)> read;
};

// nlohmann turns true into 1, 2.7 into 2 and -1 into 2^64 - 1.
template <class T>
T read_strictly(const json& value) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() ? std::is_signed_v<T> && std::in_range<T>(value.get<int64_t>())
                                                   : std::in_range<T>(value.get<uint64_t>()));
    if (!fits) bad("wrong number in a recipe", value.dump());
  }
  return value.get<T>();
}

template <class T>
Field field(const char* name, T ConvertOptions::*member) {
  return {name,
          [=](const ConvertOptions& options, ordered_json& out) {
            if (options.*member != ConvertOptions{}.*member) out[name] = options.*member;
          },
          [=](ConvertOptions& options, const json& value) { options.*member = read_strictly<T>(value); }};
}

Field rank_field(const char* name, int64_t SubspaceRank::*member) {
  return {
      name,
      [=](const ConvertOptions& options, ordered_json& out) {
        if (options.subspace.*member != SubspaceRank{}.*member) out[name] = options.subspace.*member;
      },
      [=](ConvertOptions& options, const json& value) { options.subspace.*member = read_strictly<int64_t>(value); }};
}

// Headers travel with models: they name files without the folders of one machine.
std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

Field lora_field(const char* name, std::vector<MergeLora> ConvertOptions::*member) {
  return {name,
          [=](const ConvertOptions& options, ordered_json& out) {
            for (const MergeLora& lora : options.*member)
              out[name].push_back({{"file", file_name(lora.file)}, {"strength", lora.strength}});
          },
          [=](ConvertOptions& options, const json& value) {
            if (!value.is_array()) bad(std::string(name) + " is an array", value.dump());
            (options.*member).clear();
            for (const json& entry : value) {
              if (!entry.is_object() || entry.size() != 2 || !entry.contains("file") || !entry.contains("strength") ||
                  !entry["strength"].is_number())
                bad("an entry of " + std::string(name) + " is a file and a strength", entry.dump());
              (options.*member).push_back({entry["file"].get<std::string>(), entry["strength"].get<double>()});
            }
          }};
}

const std::vector<Field>& fields() {
  static const std::vector<Field> list = {
      {"to", [](const ConvertOptions& options, ordered_json& out) { out["to"] = options.to; },
       [](ConvertOptions& options, const json& value) { options.to = value.get<std::string>(); }},
      field("fallback", &ConvertOptions::fallback),
      {"preset", [](const ConvertOptions& options, ordered_json& out) { out["preset"] = options.preset; },
       [](ConvertOptions& options, const json& value) { options.preset = value.get<std::string>(); }},
      field("component", &ConvertOptions::component),
      field("include", &ConvertOptions::include),
      field("exclude", &ConvertOptions::exclude),
      field("drop", &ConvertOptions::drop),
      {"layer_config",
       [](const ConvertOptions& options, ordered_json& out) {
         if (!options.layer_config.empty()) out["layer_config"] = ordered_json::parse(options.layer_config);
       },
       [](ConvertOptions& options, const json& value) { options.layer_config = value.dump(); }},
      field("layer_config_fullmatch", &ConvertOptions::layer_config_fullmatch),
      field("full_precision_matrix_mult", &ConvertOptions::full_precision_matrix_mult),
      {"rounding",
       [](const ConvertOptions& options, ordered_json& out) {
         if (options.rounding == Rounding::Mode::stochastic) out["rounding"] = "stochastic";
       },
       [](ConvertOptions& options, const json& value) {
         const auto text = value.get<std::string>();
         if (text != "stochastic" && text != "nearest") bad("unknown rounding", text);
         options.rounding = text == "stochastic" ? Rounding::Mode::stochastic : Rounding::Mode::nearest_even;
       }},
      field("seed", &ConvertOptions::seed),
      field("effort", &ConvertOptions::effort),
      field("optimizer", &ConvertOptions::optimizer),
      {"top_p",
       [](const ConvertOptions& options, ordered_json& out) {
         if (options.subspace.top_p != SubspaceRank{}.top_p) out["top_p"] = options.subspace.top_p;
       },
       [](ConvertOptions& options, const json& value) { options.subspace.top_p = value.get<double>(); }},
      rank_field("min_k", &SubspaceRank::min_k),
      rank_field("max_k", &SubspaceRank::max_k),
      {"bf16_compute",
       [](const ConvertOptions& options, ordered_json& out) {
         if (options.bf16_compute != Bf16Compute::automatic) out["bf16_compute"] = name(options.bf16_compute);
       },
       [](ConvertOptions& options, const json& value) {
         const auto mode = parse_bf16_compute(value.get<std::string>());
         if (!mode) bad("unknown mode of bf16_compute", value.dump());
         options.bf16_compute = *mode;
       }},
      field("no_bias_correction", &ConvertOptions::no_bias_correction),
      field("calibration", &ConvertOptions::calibration_fingerprint),
      field("input_scale", &ConvertOptions::input_scale),
      {"smooth",
       [](const ConvertOptions& options, ordered_json& out) {
         if (options.smooth) out["smooth"] = *options.smooth;
       },
       [](ConvertOptions& options, const json& value) {
         if (!value.is_number()) bad("wrong number in a recipe", value.dump());
         options.smooth = value.get<double>();
       }},
      lora_field("merge_loras", &ConvertOptions::merge_loras),
      field("merge_dampen", &ConvertOptions::merge_dampen),
      {"merge_rounding",
       [](const ConvertOptions& options, ordered_json& out) {
         if (options.merge_rounding != MergeRounding::feedback) out["merge_rounding"] = name(options.merge_rounding);
       },
       [](ConvertOptions& options, const json& value) {
         const auto mode = parse_merge_rounding(value.get<std::string>());
         if (!mode) bad("unknown rounding of merged layers", value.dump());
         options.merge_rounding = *mode;
       }},
      {"merge_original",
       [](const ConvertOptions& options, ordered_json& out) {
         if (!options.merge_original.empty()) out["merge_original"] = file_name(options.merge_original);
       },
       [](ConvertOptions& options, const json& value) { options.merge_original = value.get<std::string>(); }},
      lora_field("lora", &ConvertOptions::scale_loras),
      lora_field("calibration_lora", &ConvertOptions::calibration_loras),
  };
  return list;
}

ordered_json options_json(const ConvertOptions& options) {
  ordered_json out;
  for (const Field& entry : fields()) entry.write(options, out);
  return out;
}

const Field* find_field(std::string_view name) {
  const auto at =
      std::find_if(fields().begin(), fields().end(), [&](const Field& field) { return name == field.name; });
  return at == fields().end() ? nullptr : &*at;
}

// In the order of fields(): what differed from the recipe before, or does now.
std::vector<std::string> modified_fields(const NamedRecipe& recipe, const ordered_json& now) {
  const ordered_json before = ordered_json::parse(recipe.text);
  std::vector<std::string> names;
  for (const Field& entry : fields()) {
    const bool earlier = std::ranges::find(recipe.modified, entry.name) != recipe.modified.end();
    if (earlier || before.value(entry.name, ordered_json()) != now.value(entry.name, ordered_json()))
      names.emplace_back(entry.name);
  }
  return names;
}

// Fields that say whose the options are. False for others.
bool read_title(NamedRecipe& recipe, const std::string& key, const ordered_json& value) {
  if (key == "name") {
    recipe.name = value.get<std::string>();
    if (!is_recipe_name(recipe.name)) bad("a recipe's name is letters, digits, '.', '_' and '-'", value.dump());
  } else if (key == "revision") {
    recipe.revision = read_strictly<uint64_t>(json(value));
    if (recipe.revision == 0) bad("revisions count from 1", value.dump());
  } else if (key == "modified") {
    recipe.modified = value.get<std::vector<std::string>>();
    for (const std::string& field : recipe.modified)
      if (find_field(field) == nullptr) bad("unknown field in 'modified'", field);
  } else if (key == "description") {
    (void)value.get<std::string>();
  } else {
    return key == "version";
  }
  return true;
}

std::optional<std::string> text_of(const io::Metadata& metadata, std::string_view wanted) {
  for (const auto& [key, value] : metadata)
    if (key == wanted && !json_too_deep(value)) return value;
  return std::nullopt;
}

std::string string_in(const ordered_json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

}  // namespace

bool is_recipe_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::string recipe_json(const ConvertOptions& options) {
  const ordered_json fields = options_json(options);
  ordered_json out;
  out["version"] = kVersion;
  if (!options.recipe.name.empty()) {
    out["name"] = options.recipe.name;
    out["revision"] = options.recipe.revision;
    if (auto modified = modified_fields(options.recipe, fields); !modified.empty())
      out["modified"] = std::move(modified);
  }
  out.update(fields);
  return out.dump();
}

ConvertOptions recipe_from_json(const std::string& text) {
  if (json_too_deep(text)) bad("a recipe is a JSON object", "text that nests too deeply");
  // Parsed in order: a layer config's entries keep their order.
  const auto root = ordered_json::parse(text, nullptr, false);
  if (!root.is_object()) bad("a recipe is a JSON object", root.is_discarded() ? "text that is not JSON" : text);
  if (!root.contains("version") || root["version"] != kVersion)
    bad("unknown version of a recipe", root.contains("version") ? root["version"].dump() : "none");
  ConvertOptions options;
  for (const auto& [key, value] : root.items()) {
    try {
      if (read_title(options.recipe, key, value)) continue;
      const Field* found = find_field(key);
      if (found == nullptr) bad("unknown field in a recipe", key);
      if (key == "layer_config")
        options.layer_config = value.dump();
      else
        found->read(options, json(value));
    } catch (const json::exception&) {
      bad("wrong type of a field in a recipe", key + " = " + value.dump());
    }
  }
  if (options.recipe.name.empty() && (root.contains("revision") || root.contains("modified")))
    bad("a revision of a recipe without a name", text);
  if (!options.recipe.name.empty()) options.recipe.text = options_json(options).dump();
  return options;
}

std::string origin_json(const Origin& origin) {
  ordered_json out;
  out["version"] = origin.version;
  if (!origin.kernels.empty()) out["kernels"] = origin.kernels;
  out["recipe"] = ordered_json::parse(origin.recipe);
  return out.dump();
}

std::optional<Origin> origin_of(const io::Metadata& metadata) {
  if (const auto text = text_of(metadata, kOriginKey)) {
    const auto root = ordered_json::parse(*text, nullptr, false);
    if (root.is_object() && root.contains("recipe") && root["recipe"].is_object())
      return Origin{string_in(root, "version"), string_in(root, "kernels"), root["recipe"].dump()};
  }
  if (auto recipe = text_of(metadata, kOldRecipeKey))
    return Origin{text_of(metadata, kOldVersionKey).value_or(""), "", std::move(*recipe)};
  return std::nullopt;
}

bool is_origin_key(std::string_view key) {
  return key == kOriginKey || key == kOldRecipeKey || key == kOldVersionKey;
}

}  // namespace mezzotint::convert
