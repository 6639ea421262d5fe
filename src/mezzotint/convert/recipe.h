#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/convert/options.h"
#include "mezzotint/io/tensor_info.h"

/// The short form of a plan: the options that decide the bytes, as JSON. Stored in every output's header and replayed
/// by `convert --recipe`. What only decides how fast the run goes (threads, memory, shards) is not part of it.
namespace mezzotint::convert {

/// `{"version":1}`; of a named recipe "name" and "revision", and "modified" where options given beside it won: the
/// names of the fields that are not the recipe's. Then an entry for each option.
std::string recipe_json(const ConvertOptions& options);
/// Throws Error "bad-recipe" on anything that recipe_json could not have written; unknown fields are an error. A
/// "description" is for people and is not kept.
ConvertOptions recipe_from_json(const std::string& text);

/// Names of recipes: letters, digits, '.', '_' and '-'.
bool is_recipe_name(std::string_view name);

/// What an output's header says about how it was made.
struct Origin {
  std::string version;  ///< of the program, "" = not said
  std::string kernels;  ///< of the dense algebra (dense::blas_name), where it decided bytes
  std::string recipe;   ///< recipe_json
};
/// The header's one entry of this program: a JSON object of `version`, `kernels` and `recipe`.
inline constexpr std::string_view kOriginKey = "mezzotint";
std::string origin_json(const Origin& origin);
/// What a converted file's header says, files of earlier versions included; none where it says nothing that can be
/// read.
std::optional<Origin> origin_of(const io::Metadata& metadata);
/// Keys under which this program or an earlier version of it wrote its origin.
bool is_origin_key(std::string_view key);

}  // namespace mezzotint::convert
