#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

/// From the path that a user gave to the files that hold the tensors (room-internal).
namespace mezzotint::io {

struct InputFiles {
  std::vector<std::filesystem::path> files;
  std::filesystem::path index;  ///< empty if there is none
  /// (tensor, position of its shard in `files`), from the index
  std::vector<std::pair<std::string, size_t>> weight_map;
};

/// See Source::open for the rules and errors.
InputFiles find_input_files(const std::filesystem::path& path);

/// The shards and the weight map of an index. Throws "bad-index", "shards-missing".
InputFiles read_index(const std::filesystem::path& path);

/// Throws "shards-missing" with the names of all files that are not there; `set` is the index or folder that wants
/// them.
void require_all(const std::vector<std::filesystem::path>& files, const std::filesystem::path& set);

}  // namespace mezzotint::io
