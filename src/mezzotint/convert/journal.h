#pragma once
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "mezzotint/io/platform.h"

/// What a run has finished, beside its .partial file, so that a killed run can go on.
namespace mezzotint::convert {

/// A text file NAME.partial.journal: one line with the identity of the run, then `row N` for every finished row and
/// `synced K` when the first K row lines are known to be on disk. After a crash of the program every row line counts;
/// after a restart of the machine (another boot id) only the synced ones do.
class Journal {
 public:
  static std::filesystem::path path_for(const std::filesystem::path& output);

  /// Reads the journal of an earlier run: the rows it finished. Empty if there is none. Throws Error "resume-mismatch"
  /// if it belongs to another input, other options or another version.
  static std::vector<size_t> read(const std::filesystem::path& path, uint64_t fingerprint);

  /// Starts a journal that already counts `done` rows as synced, replacing an older one.
  Journal(std::filesystem::path path, uint64_t fingerprint, const std::vector<size_t>& done);

  /// Thread-safe.
  void row_done(size_t row);
  /// Rows recorded so far; call before making the output durable, then pass the result to synced().
  size_t recorded();
  void synced(size_t count);
  /// Removes the file (after the output was committed).
  void remove();

 private:
  void append(const std::string& line);
  std::filesystem::path path_;
  std::mutex mutex_;
  io::platform::File file_;
  uint64_t bytes_ = 0;
  size_t recorded_ = 0;
};

}  // namespace mezzotint::convert
