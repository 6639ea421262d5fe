#pragma once
#include <optional>
#include <vector>

#include "mezzotint/checkpoint/model.h"

/// Values of a weight as float32, whatever it is stored as: what verify and compare read tile by tile.
namespace mezzotint::checkpoint {

/// Whether elements of this dtype can be read as numbers one by one (sub-byte and complex types cannot).
bool is_readable(DType dtype);

/// Whether a tensor can be the smoothing factors (pre_quant_scale) of a layer: floats, one for every column.
bool are_smoothing_factors(const io::TensorInfo& info, const formats::Layout& layout);

/// What every column of the decoded codes has to be multiplied by to give the layer's weight: [K], or empty where the
/// layer is not smoothed.
std::vector<float> column_factors(const Model& model, const Layer& layer);

/// Multiplies `rows` packed rows by the factors; does nothing where there are none.
void scale_columns(const std::vector<float>& factors, uint64_t rows, float* values);

/// A run of elements.
struct Run {
  uint64_t first = 0;
  uint64_t count = 0;
};

/// Reads runs of elements in logical row-major order. Safe to use from several threads; the model must outlive it.
class WeightValues {
 public:
  /// The weight of a consistent quantized layer, smoothing factors included: parameters are read and converted now
  /// (Model::parameters).
  WeightValues(const Model& model, const Layer& layer);
  /// A tensor taken as it is stored, without any scale; its dtype must be is_readable.
  WeightValues(const Model& model, size_t tensor);

  /// Multiplies columns by one more factor each: of a layer, or of a tensor whose last dimension they fit.
  void rescale(const std::vector<float>& factors);

  uint64_t elements() const { return elements_; }
  /// Runs start at multiples of the granule inside a span (an expert of a bank, or everything) and end at one or at
  /// the span's end: rows of a quantized layer cannot be cut.
  uint64_t granule() const { return granule_; }
  uint64_t span() const { return span_; }
  /// Decodes `count` elements from element `first`. `bytes` is scratch, resized as needed.
  void read(uint64_t first, uint64_t count, float* out, std::vector<std::byte>& bytes) const;
  /// Bytes of the file that `count` elements take, for progress.
  uint64_t stored_bytes(uint64_t count) const;

 private:
  const Model* model_;
  const Layer* layer_ = nullptr;
  formats::Parameters parameters_;
  std::vector<float> factors_;
  size_t tensor_;
  uint64_t elements_ = 0;
  uint64_t granule_ = 1;
  uint64_t span_ = 0;
};

/// Cuts a weight, or two of equal size that are read side by side (`other` may be null), into runs that both can read,
/// about `target` elements each.
std::vector<Run> cut_runs(const WeightValues& values, const WeightValues* other, uint64_t target);

}  // namespace mezzotint::checkpoint
