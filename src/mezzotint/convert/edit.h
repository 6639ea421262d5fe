#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/execute.h"

namespace mezzotint::convert {

/// Changes to a file that leave every remaining tensor's bytes alone. All patterns are regexes searched in the name.
struct EditOptions {
  std::vector<std::string> remove_tensors;                          ///< regex
  std::vector<std::pair<std::string, std::string>> rename_tensors;  ///< regex -> replacement ($1 ...)
  std::vector<std::filesystem::path> add_tensors_from;              ///< every tensor of these files is added
  std::vector<std::pair<std::string, std::string>> set_metadata;    ///< key, value
  std::vector<std::string> remove_metadata;                         ///< exact keys
  std::string layers;                                           ///< regex over layer names for the next two; "" = all
  std::vector<std::pair<std::string, std::string>> set_fields;  ///< marker field, JSON value
  std::vector<std::string> remove_fields;                       ///< marker field
  uint64_t max_shard_bytes = 0;
};

/// Streams `model` to `output` with the edits applied; markers and header metadata are kept in step. Atomic like a
/// conversion. Returns a line per change made.
std::vector<std::string> edit(const checkpoint::Model& model, const std::filesystem::path& output,
                              const EditOptions& edits, const ExecuteOptions& options);

/// Writes a mended copy: markers in both forms for every recognised layer, canonical scale dtypes and shapes, orphan
/// scales and stale markers left out. Codes are never touched. Returns a line per repair; throws Error "not-repairable"
/// where a finding of severity error cannot be mended.
std::vector<std::string> repair(const checkpoint::Model& model, const std::filesystem::path& output,
                                const ExecuteOptions& options);

}  // namespace mezzotint::convert
