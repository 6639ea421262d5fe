#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

namespace mezzotint::cli {

/// What `doctor` tells about the machine. Zero or empty where the system does not say.
struct MachineFacts {
  std::string cpu;
  int threads = 0;
  uint64_t memory_bytes = 0;
  uint64_t available_bytes = 0;  ///< that new programs can have
  std::string system;            ///< kernel name and release
};
MachineFacts machine_facts();

struct DiskSpeed {
  double write_mb_s = 0;  ///< written and synced
  double read_mb_s = 0;   ///< read back after the cache was asked to drop it
  uint64_t bytes = 0;
};
/// Writes a file of at most 256 MiB (less where the folder has less room) in `folder`, reads it back and removes it.
/// Throws Error "folder-not-writable" or "disk-full".
DiskSpeed measure_disk(const std::filesystem::path& folder);

}  // namespace mezzotint::cli
