#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::io::platform {
namespace fs = std::filesystem;
namespace {

/// Largest single read or write: Linux moves at most 2 GiB less a page in one call.
constexpr size_t kMaxTransfer = size_t{1} << 30;

std::string error_text(int code) {
  return std::generic_category().message(code);
}

[[noreturn]] void fail(std::string_view name, std::string problem, const fs::path& path, int code,
                       std::string advice = {}) {
  throw Error({.name = name,
               .problem = std::move(problem),
               .file = path.string(),
               .found = error_text(code),
               .advice = std::move(advice)});
}

[[noreturn]] void fail_write(const fs::path& path, int code) {
  if (code == ENOSPC || code == EDQUOT)
    fail("disk-full", "the disk is full", path, code, "Free some space or write to another disk");
  if (code == EFBIG)
    fail("file-too-large", "the file is larger than the file system or the process may write", path, code,
         "Split the output into shards, raise the limit (ulimit -f) or write to another disk");
  fail("write-failed", "writing failed", path, code);
}

fs::path folder_of(const fs::path& path) {
  const fs::path folder = path.parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

struct stat stat_of(int handle, const fs::path& path) {
  struct stat facts;
  if (fstat(handle, &facts) != 0) fail("read-failed", "the file's attributes cannot be read", path, errno);
  return facts;
}

/// Calls f again while a signal interrupts it.
template <class F>
auto retry(F f) {
  auto result = f();
  while (result < 0 && errno == EINTR) result = f();
  return result;
}

}  // namespace

FileType file_type(const fs::path& path) {
  struct stat facts;
  if (stat(path.c_str(), &facts) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return FileType::missing;
    fail("open-failed", "the path cannot be looked at", path, errno);
  }
  if (S_ISREG(facts.st_mode)) return FileType::regular;
  return S_ISDIR(facts.st_mode) ? FileType::folder : FileType::other;
}

bool same_file(const fs::path& a, const fs::path& b) {
  struct stat one, two;
  if (stat(a.c_str(), &one) != 0 || stat(b.c_str(), &two) != 0) return false;
  return one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

fs::path follow_links(const fs::path& path) {
  fs::path here = path;
  for (int hops = 0; hops < 40; ++hops) {
    std::error_code ignored;
    const fs::path target = fs::read_symlink(here, ignored);
    if (ignored) return here;
    here = folder_of(here) / target;  // an absolute target replaces the left side
  }
  fail("link-loop", "the symbolic link leads nowhere", path, ELOOP);
}

void rename(const fs::path& from, const fs::path& to, bool replace) {
  if (!replace) {
    if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
    if (errno == EEXIST) fail("output-exists", "the output exists already", to, errno);
    // Not every file system knows the flag; there the earlier check for an existing output has to do.
    if (errno != EINVAL && errno != ENOSYS) fail("rename-failed", "the finished file cannot be renamed", to, errno);
    struct stat facts;
    if (lstat(to.c_str(), &facts) == 0) fail("output-exists", "the output exists already", to, EEXIST);
  }
  if (::rename(from.c_str(), to.c_str()) != 0) fail("rename-failed", "the finished file cannot be renamed", to, errno);
}

void remove(const fs::path& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) fail("write-failed", "the file cannot be removed", path, errno);
}

void sync_folder(const fs::path& folder) {
  const int handle = retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (handle < 0) fail("write-failed", "the folder cannot be opened", folder, errno);
  const int result = retry([&] { return fsync(handle); });
  const int code = errno;
  ::close(handle);
  // Some network file systems have no fsync for folders; their renames are durable or nothing can make them so.
  if (result != 0 && code != EINVAL && code != EROFS) fail_write(folder, code);
}

std::optional<uint64_t> free_space(const fs::path& folder) {
  struct statvfs facts;
  if (retry([&] { return statvfs(folder.c_str(), &facts); }) != 0 || facts.f_blocks == 0) return std::nullopt;
  return static_cast<uint64_t>(facts.f_bavail) * facts.f_frsize;
}

uint64_t allocated_bytes(const fs::path& path) {
  struct stat facts;
  return stat(path.c_str(), &facts) == 0 ? static_cast<uint64_t>(facts.st_blocks) * 512 : 0;
}

std::string boot_id() {
  std::string text;
  const int handle = retry([&] { return ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC); });
  if (handle < 0) return text;
  char buffer[64];
  const ssize_t got = retry([&] { return ::read(handle, buffer, sizeof buffer); });
  ::close(handle);
  if (got > 0) text.assign(buffer, static_cast<size_t>(got));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::string proc_value(const fs::path& path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(name)) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return {};
}

File::File(File&& other) noexcept : handle_(std::exchange(other.handle_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    close();
    handle_ = std::exchange(other.handle_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

File::~File() {
  close();
}

void File::close() {
  if (handle_ >= 0) ::close(static_cast<int>(std::exchange(handle_, -1)));
}

File File::open_read(const fs::path& path) {
  File file;
  file.path_ = path;
  // O_NONBLOCK: opening a pipe by mistake must not wait for its other end.
  file.handle_ = retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (file.handle_ < 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      fail("file-not-found", "there is no such file", path, errno, "Check the path");
    fail("open-failed", "the file cannot be opened for reading", path, errno);
  }
  if (!S_ISREG(stat_of(static_cast<int>(file.handle_), path).st_mode))
    throw Error({.name = "not-a-file",
                 .problem = "the path is not a regular file",
                 .file = path.string(),
                 .advice = "Data must come from a file: pipes and devices cannot be read at offsets"});
  return file;
}

File File::open_write(const fs::path& path, bool create) {
  File file;
  file.path_ = path;
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (create ? O_CREAT : 0);
  file.handle_ = retry([&] { return ::open(path.c_str(), flags, 0666); });
  if (file.handle_ >= 0) return file;
  const int code = errno;
  if (code == ENOENT && !create) fail("file-not-found", "there is no such file", path, code);
  if (code == ENOENT || code == ENOTDIR)
    fail("folder-not-found", "the folder to write to does not exist", folder_of(path), code, "Create it first");
  if (code == EACCES || code == EPERM || code == EROFS)
    fail("folder-not-writable", "the folder cannot be written to", folder_of(path), code,
         "Choose another output path or change the permissions");
  if (code == ENOSPC || code == EDQUOT) fail_write(path, code);
  fail("open-failed", "the file cannot be opened for writing", path, code);
}

uint64_t File::size() const {
  return static_cast<uint64_t>(stat_of(static_cast<int>(handle_), path_).st_size);
}

int64_t File::modified_ns() const {
  const auto facts = stat_of(static_cast<int>(handle_), path_);
  return static_cast<int64_t>(facts.st_mtim.tv_sec) * 1'000'000'000 + facts.st_mtim.tv_nsec;
}

bool File::is_named(const fs::path& path) const {
  struct stat named;
  if (lstat(path.c_str(), &named) != 0) return false;
  const auto facts = stat_of(static_cast<int>(handle_), path_);
  return facts.st_dev == named.st_dev && facts.st_ino == named.st_ino;
}

size_t File::read_at(uint64_t offset, void* into, size_t size) const {
  size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(static_cast<int>(handle_), static_cast<char*>(into) + done,
                              std::min(size - done, kMaxTransfer), static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read-failed", "reading at byte " + std::to_string(offset + done) + " failed", path_, errno);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

std::shared_ptr<std::byte> File::map() const {
  const size_t bytes = size();
  if (bytes == 0) return nullptr;
  // Without reserve: private pages count as memory that might be wanted, and a large file would be refused.
  void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, static_cast<int>(handle_), 0);
  if (start == MAP_FAILED) fail("map-failed", "the file cannot be mapped into memory", path_, errno);
  return {static_cast<std::byte*>(start), [bytes](std::byte* first) { munmap(first, bytes); }};
}

void File::write_at(uint64_t offset, const void* data, size_t size) const {
  size_t done = 0;
  while (done < size) {
    const ssize_t put = pwrite(static_cast<int>(handle_), static_cast<const char*>(data) + done,
                               std::min(size - done, kMaxTransfer), static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_write(path_, errno);
    done += static_cast<size_t>(put);
  }
}

void File::resize(uint64_t bytes) const {
  if (retry([&] { return ftruncate(static_cast<int>(handle_), static_cast<off_t>(bytes)); }) != 0)
    fail_write(path_, errno);
}

void File::start_writeback(uint64_t offset, uint64_t size) const {
  (void)sync_file_range(static_cast<int>(handle_), static_cast<off64_t>(offset), static_cast<off64_t>(size),
                        SYNC_FILE_RANGE_WRITE);
}

void File::sync_data() const {
  if (retry([&] { return fdatasync(static_cast<int>(handle_)); }) != 0) fail_write(path_, errno);
}

void File::sync() const {
  if (retry([&] { return fsync(static_cast<int>(handle_)); }) != 0) fail_write(path_, errno);
}

void File::advise_sequential() const {
  (void)posix_fadvise(static_cast<int>(handle_), 0, 0, POSIX_FADV_SEQUENTIAL);
}

File::Lock File::try_lock() const {
  if (retry([&] { return flock(static_cast<int>(handle_), LOCK_EX | LOCK_NB); }) == 0) return Lock::acquired;
  return errno == EWOULDBLOCK ? Lock::busy : Lock::unsupported;
}

}  // namespace mezzotint::io::platform
