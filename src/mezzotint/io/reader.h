#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/io/header.h"
#include "mezzotint/io/tensor_info.h"

/// Reading checkpoints. Headers are parsed once and data is read by pread; nothing is mapped or kept but by map().
namespace mezzotint::io {

/// A set of tensors to read: one file or a sharded set. Cheap to copy; safe to read from several threads.
class Source {
 public:
  /// Opens
  ///   - a .safetensors file (any name; the content decides),
  ///   - a *.index.json with the shards beside it,
  ///   - a folder: its *.index.json, else its only .safetensors file, else its complete set
  ///     NAME-0000i-of-0000N.safetensors; of a diffusers folder the only transformer* or unet* in it; of a Hugging Face
  ///     cache folder (models--ORG--NAME) the snapshot that refs/main names, or the only one.
  ///
  /// Throws Error: those of all_header_errors(); "file-not-found", "not-a-file", "open-failed", "read-failed";
  /// "empty-file", "git-lfs-pointer", "html-page", "gguf-file", "pytorch-file", "json-file", "archive-file" for files
  /// that are something else; "nothing-to-read" and "ambiguous-folder" (lists the choices) for folders; "bad-index",
  /// "shards-missing" (lists all of them), "index-tensor-missing" (in the index, not in its shard),
  /// "tensor-in-two-shards" for sharded sets. Tensors that a shard has beyond the index are read like the others.
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

  /// Reads `size` bytes at `offset` inside the tensor's data (an assert checks the range). Throws Error "read-failed"
  /// or "file-changed" (shorter than when it was opened).
  void read(size_t tensor, uint64_t offset, void* into, size_t size) const;
  std::vector<std::byte> read_all(size_t tensor) const;
  /// A tensor's data in a mapping of its file, which lives as long as any such pointer; null where it has none. Writing
  /// there changes this process's copy, never the file. Bytes lie as they do in the file: not aligned to anything.
  /// Throws Error "map-failed", "file-changed". The file must not be cut short as long as it is mapped.
  std::shared_ptr<std::byte> map(size_t tensor) const;

  /// Identity of the input for resuming: sizes, modification times and header bytes of every file.
  uint64_t fingerprint() const;

 private:
  struct State;
  explicit Source(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace mezzotint::io
