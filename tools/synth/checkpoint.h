#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "mezzotint/io/writer.h"

namespace mezzotint::synth {

struct WriteOptions {
  uint64_t seed = 0;
  unsigned threads = 1;
  unsigned shards = 1;  ///< about so many files
  bool overwrite = false;
  io::Metadata metadata;
};

/// Writes the checkpoint with values of fill(), at most 8 MiB in flight per thread; the bytes do not depend on the
/// number of threads. Returns the size of the output. Throws Error as io::Writer does.
uint64_t write_checkpoint(const std::filesystem::path& path, const std::vector<io::TensorSpec>& specs,
                          const WriteOptions& options);

}  // namespace mezzotint::synth
