#include "mezzotint/cli/machine.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/io/platform.h"

namespace mezzotint::cli {
namespace {

constexpr size_t kChunk = 8 << 20;
constexpr uint64_t kProbeBytes = 256ull << 20;

uint64_t proc_kilobytes(std::string_view key) {
  const std::string text = io::platform::proc_value("/proc/meminfo", key);
  return text.empty() ? 0 : std::strtoull(text.c_str(), nullptr, 10) * 1024;
}

/// A file without a lasting name: gone when it is closed.
class ProbeFile {
 public:
  explicit ProbeFile(const std::filesystem::path& folder) : folder_(folder.string()) {
    std::string name = folder_ + "/.mezzotint-doctor-XXXXXX";
    descriptor_ = mkstemp(name.data());
    if (descriptor_ < 0) fail("folder-not-writable", "no file can be written here");
    unlink(name.c_str());
  }
  ~ProbeFile() { close(descriptor_); }
  ProbeFile(const ProbeFile&) = delete;
  ProbeFile& operator=(const ProbeFile&) = delete;

  void write(const std::vector<char>& chunk) const {
    for (size_t done = 0; done < chunk.size();) {
      const ssize_t n = ::write(descriptor_, chunk.data() + done, chunk.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("disk-full", "the test file cannot be written");
      done += static_cast<size_t>(n);
    }
  }
  void sync() const {
    if (fdatasync(descriptor_) != 0) fail("write-failed", "the test file cannot be synced");
    posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
  }
  void read_all(std::vector<char>& chunk, uint64_t bytes) const {
    for (uint64_t at = 0; at < bytes;) {
      const ssize_t n = pread(descriptor_, chunk.data(), chunk.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("read-failed", "the test file cannot be read back");
      at += static_cast<uint64_t>(n);
    }
  }

 private:
  [[noreturn]] void fail(std::string_view name, const char* problem) const {
    throw Error({.name = name, .problem = problem, .file = folder_, .found = std::strerror(errno)});
  }
  std::string folder_;
  int descriptor_ = -1;
};

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 1e-6);
}

}  // namespace

MachineFacts machine_facts() {
  MachineFacts facts;
  facts.cpu = io::platform::proc_value("/proc/cpuinfo", "model name");
  facts.threads = formats::default_threads();
  facts.memory_bytes = proc_kilobytes("MemTotal");
  facts.available_bytes = proc_kilobytes("MemAvailable");
  utsname system{};
  if (uname(&system) == 0) facts.system = std::string(system.sysname) + " " + system.release + " " + system.machine;
  return facts;
}

DiskSpeed measure_disk(const std::filesystem::path& folder) {
  uint64_t bytes = kProbeBytes;
  struct statvfs room {};
  if (statvfs(folder.c_str(), &room) == 0) bytes = std::min<uint64_t>(bytes, room.f_bavail * room.f_frsize / 2);
  bytes = std::max<uint64_t>(bytes / kChunk, 1) * kChunk;
  std::vector<char> chunk(kChunk);
  // Not all zeros: some file systems store those without writing.
  for (size_t i = 0; i < chunk.size(); ++i) chunk[i] = static_cast<char>(i * 2654435761u >> 13);
  const ProbeFile file(folder);
  DiskSpeed speed;
  speed.bytes = bytes;
  const double writing = seconds_of([&] {
    for (uint64_t at = 0; at < bytes; at += kChunk) file.write(chunk);
    file.sync();
  });
  const double reading = seconds_of([&] { file.read_all(chunk, bytes); });
  speed.write_mb_s = static_cast<double>(bytes) / 1e6 / writing;
  speed.read_mb_s = static_cast<double>(bytes) / 1e6 / reading;
  return speed;
}

}  // namespace mezzotint::cli
