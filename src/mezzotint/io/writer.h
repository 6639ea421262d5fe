#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/io/tensor_info.h"

/// Writing checkpoints: the header is planned first, then bytes come in any order into NAME.partial, and only commit()
/// gives the file its final name. A crash leaves no half file under that name.
namespace mezzotint::io {

/// A tensor to be written.
struct TensorSpec {
  std::string name;
  DType dtype = DType::u8;
  Shape shape;
};

/// Where every tensor goes. Pure: made from the specs alone, so a dry run knows exact sizes.
struct OutputPlan {
  struct File {
    std::filesystem::path path;  ///< final path
    std::string header;          ///< 8 length bytes + JSON + padding
    uint64_t bytes = 0;          ///< size of the whole file
  };
  std::vector<File> files;
  std::vector<TensorInfo> tensors;  ///< parallel to the specs: file, offset, bytes
  std::string index_json;           ///< of a sharded set, else empty
  std::filesystem::path index_path;
  uint64_t total_bytes = 0;
};

struct OutputOptions {
  Metadata metadata;
  uint64_t max_shard_bytes = 0;  ///< 0 = one file
};

/// Lays out the output. Tensors are stored by dtype width (widest first, so that all data is aligned), in the order
/// given among equals. A sharded set is NAME-00001-of-0000N.safetensors plus NAME.safetensors.index.json. Throws Error
/// "duplicate-tensor", "header-too-large", "tensor-too-large-for-shard" never: a tensor larger than a shard gets its
/// own.
OutputPlan plan_output(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                       const OutputOptions& options);

/// Streams into the .partial files of a plan.
class Writer {
 public:
  enum class Mode { create, resume };
  /// Checks that the folder is writable and has room for the plan ("no-space"), refuses to overwrite an existing output
  /// unless `overwrite` ("output-exists"), creates NAME.partial and writes the headers. With Mode::resume, existing
  /// .partial files of the right size are kept and continued ("partial-missing", "partial-mismatch").
  Writer(OutputPlan plan, Mode mode, bool overwrite);
  ~Writer();  ///< leaves .partial files as they are; call discard() to remove them
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;

  const OutputPlan& plan() const;
  /// Writes part of a tensor's data; thread-safe; throws Error "write-failed", "disk-full".
  void write(size_t tensor, uint64_t offset, const void* data, size_t size);
  /// Forces what was written to disk (fdatasync).
  void sync();
  /// fsync of the files, rename to the final names (shards first, the index last), fsync of the folder.
  void commit();
  /// Removes the .partial files.
  void discard();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::filesystem::path partial_path(const std::filesystem::path& final_path);

}  // namespace mezzotint::io
