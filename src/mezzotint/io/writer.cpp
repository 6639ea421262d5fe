#include "mezzotint/io/writer.h"

#include <atomic>
#include <cassert>
#include <map>
#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::io {
namespace fs = std::filesystem;
namespace {

/// The disk is set to work after this many new bytes, so that little is left to wait for in commit().
constexpr uint64_t kWritebackBytes = uint64_t{32} << 20;

fs::path folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

[[noreturn]] void fail(std::string_view name, std::string problem, const fs::path& path, std::string advice,
                       std::string expected = {}, std::string found = {}) {
  throw Error({.name = name,
               .problem = std::move(problem),
               .file = path.string(),
               .expected = std::move(expected),
               .found = std::move(found),
               .advice = std::move(advice)});
}

void check_target(const fs::path& path, bool overwrite) {
  switch (platform::file_type(path)) {
    case platform::FileType::missing:
      return;
    case platform::FileType::folder:
      fail("output-is-folder", "the output is a folder", path, "Give the name of a file in it");
    case platform::FileType::other:
      fail("output-not-a-file", "the output is a device or pipe", path, "Give the name of a file");
    case platform::FileType::regular:
      if (!overwrite) fail("output-exists", "the output exists already", path, "Choose another name or use --force");
  }
}

struct Target {
  fs::path final_path;  ///< links followed
  fs::path partial;
  uint64_t bytes = 0;
  platform::File file;
  bool created = false;  ///< by this writer, so a failed start removes it
};

/// Folders must have room for what is not on disk yet. An abandoned .partial gives its room back or keeps its bytes.
void check_space(const std::vector<Target>& targets) {
  std::map<fs::path, uint64_t> needed;
  for (const auto& target : targets) {
    const uint64_t there = platform::allocated_bytes(target.partial);
    needed[folder_of(target.final_path)] += target.bytes > there ? target.bytes - there : 0;
  }
  for (const auto& [folder, bytes] : needed) {
    if (platform::file_type(folder) != platform::FileType::folder)
      fail("folder-not-found", "the folder to write to does not exist", folder, "Create it first");
    const auto free = platform::free_space(folder);
    if (free && *free < bytes)
      fail("no-space", "there is not enough space for the output", folder, "Free some space or write to another disk",
           std::to_string(bytes) + " bytes", std::to_string(*free) + " bytes free");
  }
}

/// Opens and locks the .partial file of a target.
void open_target(Target& target, Writer::Mode mode) {
  const bool create = mode == Writer::Mode::create;
  for (;;) {
    const bool existed = platform::file_type(target.partial) != platform::FileType::missing;
    if (!create && !existed)
      fail("partial-missing", "there is nothing to resume", target.partial, "Start over without --resume");
    target.file = platform::File::open_write(target.partial, create);
    target.created = create && !existed;
    if (target.file.try_lock() == platform::File::Lock::busy) {
      target.created = false;
      fail("output-busy", "another run is writing this output", target.partial, "Wait for it or choose another name");
    }
    // A run that finished between opening and locking has renamed or removed this file: look again.
    if (target.file.is_named(target.partial)) return;
  }
}

void start_file(const Target& target, const std::string& header) {
  target.file.resize(0);
  target.file.resize(target.bytes);
  target.file.write_at(0, header.data(), header.size());
}

void check_resumable(const Target& target, const std::string& header) {
  const std::string advice = "The output was planned differently: start over without --resume";
  if (const uint64_t size = target.file.size(); size != target.bytes)
    fail("partial-mismatch", "the file to resume has another size", target.partial, advice,
         std::to_string(target.bytes) + " bytes", std::to_string(size) + " bytes");
  std::string found(header.size(), '\0');
  target.file.read_at(0, found.data(), found.size());
  if (found != header) fail("partial-mismatch", "the file to resume has another header", target.partial, advice);
}

}  // namespace

struct Writer::State {
  OutputPlan plan;
  bool overwrite = false;
  std::vector<Target> targets;                     ///< parallel to plan.files
  std::unique_ptr<std::atomic<uint64_t>[]> dirty;  ///< bytes of each file since the last write-back

  void start(Mode mode) {
    for (const auto& file : plan.files) check_target(file.path, overwrite);
    if (!plan.index_json.empty()) check_target(plan.index_path, overwrite);
    check_space(targets);
    for (size_t i = 0; i < targets.size(); ++i) {
      open_target(targets[i], mode);
      if (mode == Mode::create)
        start_file(targets[i], plan.files[i].header);
      else
        check_resumable(targets[i], plan.files[i].header);
    }
  }

  void remove_partials(bool only_created) {
    for (auto& target : targets) {
      if (!target.file.is_open() || (only_created && !target.created)) continue;
      platform::remove(target.partial);  // while the lock is held
      target.file.close();
    }
  }

  /// The index is small: it is written at once, by the same steps.
  void commit_index() {
    const fs::path final_path = platform::follow_links(plan.index_path);
    const fs::path partial = partial_path(plan.index_path);
    {
      const auto file = platform::File::open_write(partial, true);
      file.resize(0);
      file.write_at(0, plan.index_json.data(), plan.index_json.size());
      file.sync();
    }
    platform::rename(partial, final_path, overwrite);
    platform::sync_folder(folder_of(final_path));
  }
};

Writer::Writer(OutputPlan plan, Mode mode, bool overwrite) : state_(std::make_unique<State>()) {
  state_->plan = std::move(plan);
  state_->overwrite = overwrite;
  const auto& files = state_->plan.files;
  state_->dirty = std::make_unique<std::atomic<uint64_t>[]>(files.size());
  for (const auto& file : files)
    state_->targets.push_back(
        {.final_path = platform::follow_links(file.path), .partial = partial_path(file.path), .bytes = file.bytes});
  try {
    state_->start(mode);
  } catch (...) {
    state_->remove_partials(true);
    throw;
  }
}

Writer::~Writer() = default;
Writer::Writer(Writer&&) noexcept = default;
Writer& Writer::operator=(Writer&&) noexcept = default;

const OutputPlan& Writer::plan() const {
  return state_->plan;
}

void Writer::write(size_t tensor, uint64_t offset, const void* data, size_t size) {
  const TensorInfo& info = state_->plan.tensors.at(tensor);
  assert(offset <= info.bytes && size <= info.bytes - offset);
  const auto& file = state_->targets[info.file].file;
  assert(file.is_open());
  file.write_at(info.offset + offset, data, size);
  auto& dirty = state_->dirty[info.file];
  const uint64_t before = dirty.fetch_add(size, std::memory_order_relaxed);
  if (before / kWritebackBytes != (before + size) / kWritebackBytes) file.start_writeback(0, 0);
}

void Writer::sync() {
  for (const auto& target : state_->targets) target.file.sync_data();
}

void Writer::commit() {
  State& state = *state_;
  for (const auto& target : state.targets) target.file.start_writeback(0, 0);
  for (const auto& target : state.targets) target.file.sync();
  for (const auto& target : state.targets) platform::rename(target.partial, target.final_path, state.overwrite);
  for (auto& target : state.targets) platform::sync_folder(folder_of(target.final_path));
  if (!state.plan.index_json.empty()) state.commit_index();
  for (auto& target : state.targets) target.file.close();
}

void Writer::discard() {
  state_->remove_partials(false);
}

fs::path partial_path(const fs::path& final_path) {
  return fs::path(platform::follow_links(final_path)) += ".partial";
}

bool same_file(const fs::path& a, const fs::path& b) {
  return platform::same_file(a, b);
}

}  // namespace mezzotint::io
