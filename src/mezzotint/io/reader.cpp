#include "mezzotint/io/reader.h"

#include <algorithm>
#include <cassert>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/io/file_kind.h"
#include "mezzotint/io/hash.h"
#include "mezzotint/io/input_files.h"
#include "mezzotint/io/platform.h"
#include "mezzotint/io/text.h"

namespace mezzotint::io {
namespace fs = std::filesystem;

struct Source::State {
  std::vector<fs::path> paths;
  std::vector<platform::File> files;
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  ///< views into `tensors`
  Metadata metadata;
  uint64_t total_bytes = 0;
  uint64_t fingerprint = 0;
  mutable std::mutex mutex;                              ///< of the next
  mutable std::vector<std::weak_ptr<std::byte>> mapped;  ///< by file
};

namespace {

[[noreturn]] void fail_changed(const fs::path& path, uint64_t expected, uint64_t found) {
  throw Error({.name = "file-changed",
               .problem = "the file became shorter while it was being read",
               .file = path.string(),
               .expected = "data up to byte " + std::to_string(expected),
               .found = "its end at byte " + std::to_string(found),
               .advice = "Do not write to an input; start again when it is complete"});
}

struct OpenedFile {
  platform::File file;
  Header header;
};

OpenedFile open_file(const fs::path& path, Hash64& hash) {
  OpenedFile opened{platform::File::open_read(path), {}};
  const uint64_t bytes = opened.file.size();
  char start[512];
  const size_t got = opened.file.read_at(0, start, sizeof start);
  reject_other_kinds({start, got}, bytes, path);
  const uint64_t length = parse_header_length({start, std::min<size_t>(got, 8)}, bytes, path.string());
  std::string json(length, '\0');
  if (opened.file.read_at(8, json.data(), json.size()) != json.size())
    fail_changed(path, 8 + length, opened.file.size());
  opened.header = parse_header(json, bytes, path.string());
  opened.file.advise_sequential();
  hash.add(bytes).add(opened.file.modified_ns()).add(json.size()).add(json);
  return opened;
}

/// Every tensor of the index must be in the shard that it names.
void check_weight_map(const InputFiles& input, const std::vector<TensorInfo>& tensors,
                      const std::unordered_map<std::string_view, size_t>& by_name) {
  std::unordered_map<std::string_view, size_t> seen;
  for (const auto& [tensor, shard] : input.weight_map) {
    const auto [earlier, is_new] = seen.emplace(tensor, shard);
    if (!is_new && earlier->second != shard)
      throw Error(
          {.name = "bad-index",
           .problem = "the index names two shards for one tensor",
           .file = input.index.string(),
           .tensor = printable(tensor),
           .found = input.files[earlier->second].filename().string() + " and " + input.files[shard].filename().string(),
           .advice = "Fetch the index again"});
    const auto found = by_name.find(tensor);
    if (found != by_name.end() && tensors[found->second].file == shard) continue;
    throw Error({.name = "index-tensor-missing",
                 .problem = "the shard lacks a tensor that the index places there",
                 .file = input.files[shard].string(),
                 .tensor = printable(tensor),
                 .found = found == by_name.end()
                              ? std::string("it in no shard")
                              : "it in " + input.files[tensors[found->second].file].filename().string(),
                 .advice = "Index and shards belong to different models or versions: fetch all of them again"});
  }
}

}  // namespace

Source::Source(std::shared_ptr<const State> state) : state_(std::move(state)) {}

Source Source::open(const fs::path& path) {
  auto state = std::make_shared<State>();
  InputFiles input = find_input_files(path);
  Hash64 hash;
  for (const auto& file_path : input.files) {
    OpenedFile opened = open_file(file_path, hash);
    for (auto& tensor : opened.header.tensors) {
      tensor.file = state->files.size();
      state->tensors.push_back(std::move(tensor));
    }
    for (auto& entry : opened.header.metadata) {
      const bool known = std::any_of(state->metadata.begin(), state->metadata.end(),
                                     [&](const auto& earlier) { return earlier.first == entry.first; });
      // Within one file the keys are distinct, so only later files can meet a known one.
      if (state->files.empty() || !known) state->metadata.push_back(std::move(entry));
    }
    state->total_bytes += opened.header.file_bytes;
    state->files.push_back(std::move(opened.file));
  }
  state->paths = input.files;
  state->fingerprint = hash.value();
  state->by_name.reserve(state->tensors.size());
  for (size_t i = 0; i < state->tensors.size(); ++i) {
    const auto [earlier, is_new] = state->by_name.emplace(state->tensors[i].name, i);
    if (is_new) continue;
    throw Error({.name = "tensor-in-two-shards",
                 .problem = "two shards hold a tensor of this name",
                 .file = path.string(),
                 .tensor = printable(state->tensors[i].name),
                 .found = "it in " + state->paths[state->tensors[earlier->second].file].filename().string() + " and " +
                          state->paths[state->tensors[i].file].filename().string(),
                 .advice = "The shards belong to different models or versions: fetch all of them again"});
  }
  check_weight_map(input, state->tensors, state->by_name);
  return Source(std::move(state));
}

const std::vector<TensorInfo>& Source::tensors() const {
  return state_->tensors;
}

size_t Source::find(std::string_view name) const {
  const auto found = state_->by_name.find(name);
  return found == state_->by_name.end() ? npos : found->second;
}

const Metadata& Source::metadata() const {
  return state_->metadata;
}

const std::vector<fs::path>& Source::files() const {
  return state_->paths;
}

uint64_t Source::total_bytes() const {
  return state_->total_bytes;
}

void Source::read(size_t tensor, uint64_t offset, void* into, size_t size) const {
  const TensorInfo& info = state_->tensors.at(tensor);
  assert(offset <= info.bytes && size <= info.bytes - offset);
  const auto& file = state_->files[info.file];
  if (file.read_at(info.offset + offset, into, size) != size)
    fail_changed(state_->paths[info.file], info.offset + offset + size, file.size());
}

std::vector<std::byte> Source::read_all(size_t tensor) const {
  std::vector<std::byte> bytes(state_->tensors.at(tensor).bytes);
  read(tensor, 0, bytes.data(), bytes.size());
  return bytes;
}

std::shared_ptr<std::byte> Source::map(size_t tensor) const {
  const TensorInfo& info = state_->tensors.at(tensor);
  if (info.bytes == 0) return nullptr;
  const auto& file = state_->files[info.file];
  if (file.size() < info.offset + info.bytes)
    fail_changed(state_->paths[info.file], info.offset + info.bytes, file.size());
  const std::lock_guard lock(state_->mutex);
  state_->mapped.resize(state_->files.size());
  std::shared_ptr<std::byte> whole = state_->mapped[info.file].lock();
  if (whole == nullptr) state_->mapped[info.file] = whole = file.map();
  return {whole, whole.get() + info.offset};
}

uint64_t Source::fingerprint() const {
  return state_->fingerprint;
}

}  // namespace mezzotint::io
