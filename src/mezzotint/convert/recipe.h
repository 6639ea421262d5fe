#pragma once
#include <optional>
#include <string>

#include "mezzotint/convert/options.h"
#include "mezzotint/io/tensor_info.h"

/// The short form of a plan: the options that decide the bytes, as JSON. Stored in every output's header and replayed
/// by `convert --recipe`. What only decides how fast the run goes (threads, memory, shards) is not part of it.
namespace mezzotint::convert {

inline constexpr std::string_view kRecipeKey = "mezzotint_recipe";

std::string recipe_json(const ConvertOptions& options);
/// Throws Error "bad-recipe" on anything that recipe_json could not have written; unknown fields are an error.
ConvertOptions recipe_from_json(const std::string& text);
/// The recipe that a converted file's header holds; none where its text cannot be one (json_too_deep).
std::optional<std::string> recipe_of(const io::Metadata& metadata);

}  // namespace mezzotint::convert
