#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

/// Every call to the operating system that this program makes for files. One source file implements it for each
/// system (platform_linux.cpp). All failures are mezzotint::Error with the system's own words in `found`.
namespace mezzotint::io::platform {

enum class FileType { missing, regular, folder, other };

/// What a path names, following links. Throws "open-failed" where that cannot be told (permissions, link loop).
FileType file_type(const std::filesystem::path& path);

/// Two paths that lead to the same stored file (links of either kind included). False where one does not exist.
bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

/// Where a write to `path` would land: symbolic links followed, the last of them may dangle. Throws "link-loop".
std::filesystem::path follow_links(const std::filesystem::path& path);

/// Gives `from` the name `to`. With `replace`, an existing `to` is replaced in one step; without, it is
/// "output-exists".
void rename(const std::filesystem::path& from, const std::filesystem::path& to, bool replace);
/// Removes a file if it is there.
void remove(const std::filesystem::path& path);
/// Makes names created or changed in a folder survive a power failure.
void sync_folder(const std::filesystem::path& folder);

/// Bytes that this user may still write below `folder`; nullopt where the file system does not say.
std::optional<uint64_t> free_space(const std::filesystem::path& folder);
/// Bytes of disk that a file occupies already; 0 if there is none.
uint64_t allocated_bytes(const std::filesystem::path& path);

/// A value that changes when the machine starts anew; empty where the system has none. Bytes that were written but not
/// synced before the last start may be gone.
std::string boot_id();
/// Of the lines "NAME : VALUE" in a file of the system (/proc/cpuinfo), the first value of a name that begins so; empty
/// where there is none.
std::string proc_value(const std::filesystem::path& path, std::string_view name);

/// An open file. Reading and writing at offsets is safe from several threads.
class File {
 public:
  enum class Lock { acquired, busy, unsupported };

  File() = default;
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  /// Opens a regular file. Throws "file-not-found", "not-a-file", "open-failed".
  static File open_read(const std::filesystem::path& path);
  /// Opens for reading and writing; with `create`, a missing file is made with the permissions that the umask leaves.
  /// Never follows a link in the last component. Throws "file-not-found", "folder-not-found", "folder-not-writable",
  /// "open-failed".
  static File open_write(const std::filesystem::path& path, bool create);

  bool is_open() const { return handle_ >= 0; }
  void close();

  uint64_t size() const;
  int64_t modified_ns() const;  ///< nanoseconds since 1970
  /// Whether `path` still names this very file.
  bool is_named(const std::filesystem::path& path) const;

  /// Reads until `size` bytes are there or the file ends; returns how many. Throws "read-failed".
  size_t read_at(uint64_t offset, void* into, size_t size) const;
  /// The whole file as memory, for as long as the pointer lives; what is written there stays in this process. Empty
  /// files have none (null). Throws "map-failed". Reading what somebody cut off the file meanwhile ends the process.
  std::shared_ptr<std::byte> map() const;
  /// Writes all of it. Throws "disk-full" (no space or quota), "file-too-large" (limit of the file system or process),
  /// "write-failed".
  void write_at(uint64_t offset, const void* data, size_t size) const;

  /// Sets the size: longer files grow by zeros that occupy no disk.
  void resize(uint64_t bytes) const;
  /// Starts writing a range to disk without waiting for it. size 0 = to the end. Only a hint.
  void start_writeback(uint64_t offset, uint64_t size) const;
  void sync_data() const;  ///< the data and what is needed to read it back
  void sync() const;       ///< data and all attributes
  /// Reading will go forward: the system may read further ahead. Only a hint.
  void advise_sequential() const;
  /// Excludes other runs until this file is closed; does not wait.
  Lock try_lock() const;

 private:
  std::intptr_t handle_ = -1;
  std::filesystem::path path_;
};

}  // namespace mezzotint::io::platform
