#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mezzotint/tensor/stored_weight.h"

/// A quantized weight that is an at::Tensor: operations on it find a kernel of its format (registry.h), or else compute
/// with its values. It has a dispatch key of its own above autograd, so that operations arrive whole.
namespace mezzotint::tensor {

/// What products do with the inputs of fp8 layers whose file has no input_scale.
enum class UnscaledInputs : uint8_t {
  per_row,  ///< scaled by amax / largest code of every row
  /// ComfyUI's rule: scale 1, so that values beyond the largest code (448 or 57344) are clamped and small ones vanish;
  /// a 1-D input is not rounded.
  as_comfyui,
};

/// What a layer's file says about its products, besides the weight.
struct ProductOptions {
  std::string name;                         ///< of the layer, for summaries
  std::optional<float> input_scale;         ///< static scale of activations, as stored
  at::Tensor pre_quant_scale;               ///< [K] float32: multiplies inputs; undefined = none
  bool full_precision_matrix_mult = false;  ///< inputs are not rounded
  UnscaledInputs unscaled_inputs = UnscaledInputs::per_row;
};

class QuantizedTensorImpl final : public c10::TensorImpl {
 public:
  /// What a tensor and its aliases (detach, t, view) share, as plain tensors share their storage.
  struct Cell {
    std::shared_ptr<const StoredWeight> stored;
  };

  QuantizedTensorImpl(std::shared_ptr<Cell> cell, at::ScalarType logical, bool transposed,
                      std::shared_ptr<const ProductOptions> product);

  const std::shared_ptr<const StoredWeight>& stored() const { return cell_->stored; }
  const std::shared_ptr<Cell>& cell() const { return cell_; }
  const std::shared_ptr<const ProductOptions>& product() const { return product_; }
  bool transposed() const { return transposed_; }
  /// Puts other codes of the same layout in place (in-place operations); aliases see them, too.
  void replace(std::shared_ptr<const StoredWeight> stored);

  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(const c10::VariableVersion& version,
                                                              bool allow_metadata_change) const override;
  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(c10::VariableVersion&& version,
                                                              bool allow_metadata_change) const override;
  void shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& other) override;

 private:
  const char* tensorimpl_type_name() const override { return "mezzotint::QuantizedTensorImpl"; }
  void set_shape();

  std::shared_ptr<Cell> cell_;
  std::shared_ptr<const ProductOptions> product_;
  bool transposed_;
};

bool is_quantized(const at::Tensor& tensor);
/// Throws c10::Error where the tensor is not quantized.
const QuantizedTensorImpl& quantized(const at::Tensor& tensor);

/// `logical` is what dtype() answers: the dtype that its values are computed in.
at::Tensor make_tensor(std::shared_ptr<const StoredWeight> stored, at::ScalarType logical, bool transposed = false,
                       std::shared_ptr<const ProductOptions> product = nullptr);

/// Another tensor of the same codes: what is written into one is seen in both.
at::Tensor make_alias(const at::Tensor& tensor, bool transposed);

/// Quantizes; the logical dtype is the weight's.
at::Tensor from_float(const at::Tensor& weight, std::string_view format, const QuantizeOptions& options = {});
/// Quantizes `weight` the way `like` is stored: format, rotation, groups, block size, per row and codebook.
at::Tensor requantize_like(const at::Tensor& weight, const at::Tensor& like, const QuantizeOptions& options = {});
/// Values in the logical dtype (or another float dtype); a tensor that is not quantized is returned as it is.
at::Tensor dequantized(const at::Tensor& tensor, std::optional<at::ScalarType> type = std::nullopt);

/// "int8_blockwise:block_size=64"
std::string format_label(const at::Tensor& tensor);
/// "int8_blockwise [3072, 3072] as bfloat16 on cpu, 9.2 MB"
std::string describe(const at::Tensor& tensor);

}  // namespace mezzotint::tensor
