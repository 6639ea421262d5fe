#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/adapter/file.h"
#include "mezzotint/adapter/key_map.h"
#include "mezzotint/adapter/stack.h"
#include "mezzotint/convert/options.h"
#include "mezzotint/formats/format.h"

/// Adapters that a conversion multiplies into the weights: which of their patches change which tensor, before any
/// factor is read, and the factors of one tensor, when its turn comes.
namespace mezzotint::convert {

struct MergedPatch {
  size_t file = 0;   ///< in the order of AdapterRequest::files
  size_t patch = 0;  ///< in AdapterFile::patches()
  double strength = 1;
  adapter::Target target;
};

/// What adapters do to one tensor of the source.
struct MergedTensor {
  std::vector<MergedPatch> patches;  ///< in the order in which they are applied
  size_t layer = checkpoint::Model::npos;
  Shape before;         ///< as the model computes with it
  Shape after;          ///< the same, or larger
  int64_t granule = 1;  ///< rows of `after` (adapter/tensor.h) that are merged together, counted from row 0
  int64_t rank = 0;     ///< sum of the ranks of the patches that are products of two matrices
  uint64_t bytes = 0;   ///< of the factors as float32

  int64_t rows() const { return adapter::matrix_rows(after); }
  int64_t cols() const { return adapter::matrix_cols(after); }
};

/// Adapters that are looked at together.
struct AdapterRequest {
  std::vector<MergeLora> files;
  bool dampen = false;               ///< the n-th of them with 0.9^(n-1) of its strength
  bool strict = false;               ///< an error where anything in them has no place in the model
  std::string_view what = "Merged";  ///< what the notes say of a file: "Merged NAME: ..."
};

class Merge {
 public:
  /// Opens the files and finds the tensors. Notes tell what was matched, warnings what was left out. Throws Error
  /// "adapter-unrelated" where nothing of a file fits the model, and those of AdapterFile::open and
  /// adapter::require_all (strict).
  Merge(const checkpoint::Model& model, const AdapterRequest& request, std::vector<std::string>& notes,
        std::vector<std::string>& warnings);
  /// Those that the options want merged.
  Merge(const checkpoint::Model& model, const ConvertOptions& options, std::vector<std::string>& notes,
        std::vector<std::string>& warnings);

  const std::vector<adapter::AdapterFile>& files() const { return files_; }
  /// By tensor of the source.
  const std::map<size_t, MergedTensor>& tensors() const { return tensors_; }
  /// Reads the factors of a tensor.
  adapter::Stack load(const MergedTensor& tensor) const;
  /// Tells apart files and strengths.
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  void add(size_t file, const adapter::Match& match, double strength);

  std::vector<adapter::AdapterFile> files_;
  std::map<size_t, MergedTensor> tensors_;
  uint64_t fingerprint_ = 0;
};

/// Rows of a layout that hold whole granules: what merge_rows() wants. total_rows() where that is everything.
int64_t merge_granule(const MergedTensor& tensor, const formats::Layout& layout);

/// Applies a stack to rows of float32 values [rows, layout.cols]. They start at a multiple of merge_granule() and end
/// at one or at the last row. Granule by granule, so that no bit depends on how the rows are cut.
void merge_rows(const MergedTensor& tensor, const adapter::Stack& stack, const formats::Layout& layout, int64_t row0,
                int64_t rows, float* values);

}  // namespace mezzotint::convert
