#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
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
  uint64_t total_bytes = 0;  ///< of all files and the index
};

struct OutputOptions {
  Metadata metadata;             ///< repeated in every shard
  uint64_t max_shard_bytes = 0;  ///< largest file, header included; 0 = one file
};

/// Lays out the output: equal input gives equal bytes. Tensors are stored by dtype (the order of all_dtypes: widest
/// first, so that all data is aligned), in the order given among equals; the header is padded to 8 bytes. A sharded set
/// is NAME-00001-of-0000N.safetensors plus NAME.safetensors.index.json; shards are filled in the order given, and what
/// fits one file stays one plain file. A tensor larger than a shard gets one of its own.
///
/// Throws Error "duplicate-tensor", "duplicate-metadata", "bad-name" (a tensor or metadata key that is no UTF-8, or
/// "__metadata__"), "bad-shape" (negative, too large or not whole bytes), "header-too-large".
OutputPlan plan_output(const std::filesystem::path& path, const std::vector<TensorSpec>& specs,
                       const OutputOptions& options);

/// Streams into the .partial files of a plan. An output that is a symbolic link stays one: the file it leads to is
/// written beside and replaced. Another run that writes the same output is kept out by a lock on the .partial file.
class Writer {
 public:
  enum class Mode { create, resume };
  /// Checks that the folder is writable and has room for the plan, refuses to overwrite an existing output unless
  /// `overwrite`, creates NAME.partial (an abandoned one is started over) and writes the headers. With Mode::resume,
  /// existing .partial files of the right size and header are kept and continued.
  ///
  /// Throws Error "output-exists", "output-is-folder", "output-not-a-file", "folder-not-found", "folder-not-writable",
  /// "no-space", "output-busy" (another run writes it), "partial-missing", "partial-mismatch", and those of write().
  /// An existing output is untouched then, and .partial files that this call created are removed.
  Writer(OutputPlan plan, Mode mode, bool overwrite);
  ~Writer();  ///< leaves .partial files as they are; call discard() to remove them
  Writer(Writer&&) noexcept;
  Writer& operator=(Writer&&) noexcept;

  const OutputPlan& plan() const;
  /// Writes part of a tensor's data (an assert checks the range); thread-safe, also for neighbouring ranges. Throws
  /// Error "disk-full", "file-too-large", "write-failed". Pieces of 1 MiB or more are fastest.
  void write(size_t tensor, uint64_t offset, const void* data, size_t size);
  /// Forces what was written to disk (fdatasync). May run beside write(), whose bytes it then may or may not cover.
  void sync();
  /// fsync of the files, rename to the final names (shards first, the index last), fsync of the folder. Throws
  /// "output-exists" if one appeared meanwhile and `overwrite` is off. Nothing may be written afterwards.
  void commit();
  /// Removes the .partial files.
  void discard();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// FINAL.partial; where `final_path` is a symbolic link, beside the file that it leads to.
std::filesystem::path partial_path(const std::filesystem::path& final_path);

/// Two paths that lead to the same stored file, through links of either kind. For callers to refuse an output that is
/// one of the inputs.
bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace mezzotint::io
