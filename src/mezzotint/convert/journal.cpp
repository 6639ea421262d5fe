#include "mezzotint/convert/journal.h"

#include <fmt/format.h>

#include <fstream>

#include "mezzotint/base/error.h"
#include "mezzotint/io/writer.h"

namespace mezzotint::convert {
namespace {

constexpr std::string_view kTitle = "mezzotint journal 1";

std::string identity(uint64_t fingerprint) {
  return fmt::format("{} {:016x}", kTitle, fingerprint);
}

}  // namespace

std::filesystem::path Journal::path_for(const std::filesystem::path& output) {
  return io::partial_path(output).string() + ".journal";
}

std::vector<size_t> Journal::read(const std::filesystem::path& path, uint64_t fingerprint) {
  std::ifstream file(path);
  std::string line;
  // A first line that is cut off names no run: the machine stopped before any of it was on disk.
  if (!std::getline(file, line) || file.eof()) return {};
  if (line != identity(fingerprint))
    throw Error(
        {.name = "resume-mismatch",
         .problem = "the unfinished output was made from another input, with other options or by another version",
         .file = path.string(),
         .expected = identity(fingerprint),
         .found = line,
         .advice = "Run without --resume to start over."});
  std::getline(file, line);
  const std::string boot = io::platform::boot_id();
  const bool same_boot = !boot.empty() && line == "boot " + boot;
  std::vector<size_t> rows;
  size_t synced = 0;
  while (std::getline(file, line)) {
    if (file.eof()) break;  // the last line was cut off in the middle
    size_t number = 0;
    if (std::sscanf(line.c_str(), "row %zu", &number) == 1)
      rows.push_back(number);
    else if (std::sscanf(line.c_str(), "synced %zu", &number) == 1)
      synced = number;
  }
  if (!same_boot) rows.resize(std::min(rows.size(), synced));
  return rows;
}

Journal::Journal(std::filesystem::path path, uint64_t fingerprint, const std::vector<size_t>& done)
    : path_(std::move(path)) {
  io::platform::remove(path_);
  file_ = io::platform::File::open_write(path_, true);
  std::string text = identity(fingerprint) + "\nboot " + io::platform::boot_id() + "\n";
  for (const size_t row : done) text += fmt::format("row {}\n", row);
  recorded_ = done.size();
  append(text + fmt::format("synced {}\n", recorded_));
  file_.sync_data();
}

void Journal::append(const std::string& line) {
  file_.write_at(bytes_, line.data(), line.size());
  bytes_ += line.size();
}

void Journal::row_done(size_t row) {
  const std::scoped_lock lock(mutex_);
  append(fmt::format("row {}\n", row));
  ++recorded_;
}

size_t Journal::recorded() {
  const std::scoped_lock lock(mutex_);
  return recorded_;
}

void Journal::synced(size_t count) {
  const std::scoped_lock lock(mutex_);
  append(fmt::format("synced {}\n", count));
  file_.sync_data();
}

void Journal::remove() {
  const std::scoped_lock lock(mutex_);
  file_.close();
  io::platform::remove(path_);
}

}  // namespace mezzotint::convert
