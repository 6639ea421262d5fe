#include "mezzotint/io/input_files.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "mezzotint/base/error.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::io {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kDataSuffix = ".safetensors";
constexpr std::string_view kIndexSuffix = ".index.json";

std::string name_of(const fs::path& path) {
  return path.filename().string();
}

/// Names of a list, one per line, at most 20.
std::string listing(const std::vector<fs::path>& paths) {
  std::string text;
  for (size_t i = 0; i < paths.size() && i < 20; ++i) text += "\n  " + paths[i].string();
  if (paths.size() > 20) text += "\n  and " + std::to_string(paths.size() - 20) + " more";
  return text;
}

[[noreturn]] void ambiguous(const fs::path& folder, const std::vector<fs::path>& choices) {
  throw Error({.name = "ambiguous-folder",
               .problem = "the folder holds more than one model",
               .file = folder.string(),
               .advice = "Name the one that you mean:" + listing(choices)});
}

struct Listing {
  std::vector<fs::path> indexes, data, folders;
};

Listing list(const fs::path& folder) {
  Listing found;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = name_of(it->path());
    std::error_code ignored;
    if (it->is_directory(ignored)) {
      found.folders.push_back(it->path());
    } else if (name.starts_with('.')) {
      continue;  // e.g. "._model.safetensors", which macOS leaves on foreign disks
    } else if (name.ends_with(std::string(kDataSuffix) + std::string(kIndexSuffix))) {
      found.indexes.push_back(it->path());
    } else if (name.ends_with(kDataSuffix)) {
      found.data.push_back(it->path());
    }
  }
  if (error)
    throw Error({.name = "open-failed",
                 .problem = "the folder cannot be listed",
                 .file = folder.string(),
                 .found = error.message()});
  for (auto* paths : {&found.indexes, &found.data, &found.folders}) std::sort(paths->begin(), paths->end());
  return found;
}

struct ShardName {
  std::string stem;
  uint64_t number = 0, count = 0;
  size_t digits = 0;
};

/// Takes NAME-0000i-of-0000N.safetensors apart.
std::optional<ShardName> parse_shard_name(const std::string& name) {
  std::string_view text = name;
  if (!text.ends_with(kDataSuffix)) return std::nullopt;
  text.remove_suffix(kDataSuffix.size());
  ShardName shard;
  const auto take_number = [&](uint64_t& number) {
    size_t digits = 0;
    while (digits < text.size() && text[text.size() - 1 - digits] >= '0' && text[text.size() - 1 - digits] <= '9')
      ++digits;
    const std::string_view number_text = text.substr(text.size() - digits);
    const auto result = std::from_chars(number_text.data(), number_text.data() + digits, number);
    text.remove_suffix(digits);
    shard.digits = digits;
    return digits > 0 && result.ec == std::errc();
  };
  if (!take_number(shard.count) || !text.ends_with("-of-")) return std::nullopt;
  text.remove_suffix(4);
  if (!take_number(shard.number) || !text.ends_with('-')) return std::nullopt;
  text.remove_suffix(1);
  shard.stem = text;
  return shard;
}

/// The complete set that some of its shards announce; nullopt if the files are no such set.
std::optional<std::vector<fs::path>> complete_set(const fs::path& folder, const std::vector<fs::path>& data) {
  std::optional<ShardName> set;
  for (const auto& path : data) {
    const auto shard = parse_shard_name(name_of(path));
    if (!shard || shard->count == 0 || shard->count > 100'000) return std::nullopt;
    if (set && (set->stem != shard->stem || set->count != shard->count)) return std::nullopt;
    set = shard;
  }
  if (!set) return std::nullopt;
  std::vector<fs::path> files;
  const auto padded = [&](uint64_t number) {
    std::string text = std::to_string(number);
    return std::string(set->digits - std::min(set->digits, text.size()), '0') + text;
  };
  for (uint64_t i = 1; i <= set->count; ++i)
    files.push_back(folder / (set->stem + "-" + padded(i) + "-of-" + padded(set->count) + std::string(kDataSuffix)));
  return files;
}

/// What the files directly in a folder hold; nullopt if nothing.
std::optional<InputFiles> direct_files(const fs::path& folder, const Listing& found) {
  if (found.indexes.size() == 1) return read_index(found.indexes.front());
  if (found.indexes.size() > 1) ambiguous(folder, found.indexes);
  if (found.data.size() == 1 && !parse_shard_name(name_of(found.data.front()))) return InputFiles{.files = found.data};
  if (found.data.empty()) return std::nullopt;
  auto set = complete_set(folder, found.data);
  if (!set) ambiguous(folder, found.data);
  require_all(*set, folder);
  return InputFiles{.files = std::move(*set)};
}

std::string first_line(const fs::path& path) {
  if (platform::file_type(path) != platform::FileType::regular) return {};
  char text[256];
  const size_t got = platform::File::open_read(path).read_at(0, text, sizeof text);
  const std::string_view all(text, got);
  return std::string(all.substr(0, all.find_first_of("\r\n")));
}

/// The snapshot of a Hugging Face cache folder; empty if it is no such folder.
fs::path cache_snapshot(const fs::path& folder, const Listing& found) {
  const fs::path snapshots = folder / "snapshots";
  if (std::find(found.folders.begin(), found.folders.end(), snapshots) == found.folders.end()) return {};
  const auto choices = list(snapshots).folders;
  if (choices.size() == 1) return choices.front();
  const std::string main = first_line(folder / "refs" / "main");
  for (const auto& choice : choices)
    if (!main.empty() && name_of(choice) == main) return choice;
  if (!choices.empty()) ambiguous(folder, choices);
  return {};
}

InputFiles find_in_folder(const fs::path& folder) {
  const Listing found = list(folder);
  if (auto files = direct_files(folder, found)) return std::move(*files);
  if (const fs::path snapshot = cache_snapshot(folder, found); !snapshot.empty()) return find_in_folder(snapshot);

  // A diffusers model: one folder per component. Which one is the model must not be guessed where there are two.
  std::vector<fs::path> models, others;
  for (const auto& child : found.folders) {
    const Listing inside = list(child);
    if (inside.indexes.empty() && inside.data.empty()) continue;
    const std::string name = name_of(child);
    const bool is_model = name.starts_with("transformer") || name.starts_with("unet");
    (is_model ? models : others).push_back(child);
  }
  if (models.size() == 1) return find_in_folder(models.front());
  if (models.size() > 1) ambiguous(folder, models);
  throw Error({.name = "nothing-to-read",
               .problem = "the folder holds no safetensors file, index or diffusers model",
               .file = folder.string(),
               .advice = others.empty() ? "Check the path" : "Models in its folders:" + listing(others)});
}

}  // namespace

void require_all(const std::vector<fs::path>& files, const fs::path& set) {
  std::vector<fs::path> missing;
  for (const auto& file : files)
    if (platform::file_type(file) == platform::FileType::missing) missing.push_back(file);
  if (missing.empty()) return;
  throw Error({.name = "shards-missing",
               .problem = std::to_string(missing.size()) + (missing.size() == 1 ? " shard" : " shards") + " of " +
                          std::to_string(files.size()) + " missing",
               .file = set.string(),
               .advice = "Download what is missing:" + listing(missing)});
}

InputFiles find_input_files(const fs::path& path) {
  if (platform::file_type(path) == platform::FileType::folder) return find_in_folder(path);
  if (name_of(path).ends_with(kIndexSuffix)) return read_index(path);
  return {.files = {path}};
}

}  // namespace mezzotint::io
