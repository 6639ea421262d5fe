#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/rounding.h"
#include "mezzotint/formats/format.h"

/// A weight as its format stores it, in tensors of libtorch: what a QuantizedTensor holds.
namespace mezzotint::tensor {

/// Immutable once it is shared: operations that change a weight make another one.
struct StoredWeight {
  formats::Layout layout;
  /// As the module sees the weight, where that is not layout.shape: of a convolution, [O, I, kernel...], which is
  /// stored as [O, I * kernel...].
  std::optional<Shape> convolution;
  /// Parallel to layout.tensors: the codes, then the parameters, in the dtypes and shapes that files have. Contiguous,
  /// all on one device.
  std::vector<at::Tensor> tensors;

  const Shape& shape() const { return convolution ? *convolution : layout.shape; }
  at::Device device() const { return tensors[0].device(); }
  /// Views of the tensors' bytes, which must outlive them. On the CPU only.
  formats::Parameters parameters() const;
  /// The same on any device: places of bytes that may not be readable here.
  formats::Parameters addresses() const;
  size_t bytes() const;
};

/// Dtype of libtorch; throws Error "bad-dtype" for those that it does not have.
at::ScalarType scalar_type(DType dtype);
DType dtype_of(at::ScalarType type);
inline Shape shape_of(const at::Tensor& tensor) {
  return tensor.sizes().vec();
}

/// How `from_float` finds scales and codes.
struct QuantizeOptions {
  int effort = 1;                           ///< formats::ChooseOptions::effort
  std::optional<at::Tensor> column_weight;  ///< [K] float32: importance of columns
  Rounding rounding;
  int threads = 0;  ///< 0: as many as this process may use
};

/// Quantizes a float tensor ([N, K], [E, N, K] for a bank of experts, [O, I, kernel...] of rank 4 or 5) in a format by
/// name, alias or label
/// ("int8_blockwise:block_size=64"). Throws Error "unknown-format", "bad-option", or "shape-refused" with what the
/// format says.
StoredWeight quantize(const at::Tensor& weight, std::string_view format, const QuantizeOptions& options = {});
/// The same with a layout that exists: every parameter that is a choice (rotation, group, block size, per row) stays.
StoredWeight quantize(const at::Tensor& weight, const formats::Layout& layout, const QuantizeOptions& options = {});

/// Values of the weight in its shape, on its device; `type` is float32, bfloat16 or float16.
at::Tensor dequantize(const StoredWeight& weight, at::ScalarType type);

/// The same bytes on another device.
StoredWeight to_device(const StoredWeight& weight, at::Device device);
StoredWeight clone(const StoredWeight& weight);

}  // namespace mezzotint::tensor
