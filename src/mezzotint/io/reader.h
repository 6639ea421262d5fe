#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/io/tensor_info.h"

/// Reading checkpoints. Nothing is ever mapped or kept resident: headers are parsed once, data is read by pread.
namespace mezzotint::io {

/// Upper limit of a header, as in the reference implementation (safetensors 0.8.0).
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

/// A parsed and fully checked safetensors header.
struct Header {
  std::vector<TensorInfo> tensors;  ///< in the order of their data
  Metadata metadata;
  uint64_t data_start = 0;  ///< file offset of the data buffer
  uint64_t file_bytes = 0;
};

/// Parses and checks the header text of a file of `file_bytes` bytes whose JSON is `json` (the bytes after the 8-byte
/// length). Every way a header can lie has its own Error name (docs/cli.md lists them); `file` is used in messages
/// only.
Header parse_header(std::span<const char> json, uint64_t file_bytes, const std::string& file);

/// A set of tensors to read: one file or a sharded set. Cheap to copy; safe to read from several threads.
class Source {
 public:
  /// Opens a .safetensors file, a *.index.json, or a folder (diffusers or Hugging Face layout: an index, else the
  /// single safetensors file or the shards in it). Throws Error naming every missing shard.
  static Source open(const std::filesystem::path& path);

  /// In file order, then in the order of their data.
  const std::vector<TensorInfo>& tensors() const;
  /// Index of a tensor by name, or npos.
  static constexpr size_t npos = static_cast<size_t>(-1);
  size_t find(std::string_view name) const;
  /// Metadata of all files, the first file's value winning.
  const Metadata& metadata() const;
  const std::vector<std::filesystem::path>& files() const;
  uint64_t total_bytes() const;  ///< sum of the files' sizes

  /// Reads `size` bytes at `offset` inside the tensor's data. Throws Error "read-failed" or "file-changed" (shorter
  /// than when it was opened).
  void read(size_t tensor, uint64_t offset, void* into, size_t size) const;
  std::vector<std::byte> read_all(size_t tensor) const;

  /// Identity of the input for resuming: sizes, modification times and header bytes of every file.
  uint64_t fingerprint() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace mezzotint::io
