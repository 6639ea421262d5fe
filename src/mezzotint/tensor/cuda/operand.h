#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "mezzotint/formats/matmul.h"
#include "mezzotint/tensor/stored_weight.h"

/// The stored codes of a weight, wherever they lie, by operations of ATen alone: the same arithmetic on a GPU and on
/// the CPU, where it is tested. Formats are known by their MatmulForm only.
namespace mezzotint::tensor::cuda {

/// One expert of a weight. Tensors are views of the stored ones.
struct Operand {
  formats::MatmulForm form;
  int64_t rows = 0, cols = 0;  ///< N, K
  at::Tensor codes;            ///< [stored rows, stored columns (of bytes, where two codes share one)]
  at::Tensor scales;           ///< block scales, or relative scales of a grid, flat; undefined = none
  at::Tensor row_scale;        ///< [N] float32; undefined = 1
  at::Tensor scale;            ///< [1] float32; undefined = 1
  at::Tensor codebook;         ///< [16] float32; undefined = none
};

/// Nothing where the format has no form whose codes can be read here: such weights are decoded on the CPU.
std::optional<Operand> operand_of(const StoredWeight& weight, int64_t expert);

/// Values [N, K] in float32, bfloat16 or float16, bit-equal to the CPU's (formats::decode_rows). Takes temporary memory
/// for the values of 2^24 elements.
at::Tensor decode(const Operand& operand, at::ScalarType type);

/// The same for rows by their index, [n] int64 on the weight's device.
at::Tensor decode_rows(const Operand& operand, const at::Tensor& indices, at::ScalarType type);

/// [N, K] int8, of int8 and 4-bit integer codes: W = diag(row_scale) * scale * these * rotation. Those that are stored
/// so are not copied.
at::Tensor int8_codes(const Operand& operand);

/// x [..., K], every `group` columns rotated. float32: the additions of kernel/hadamard.h in their order. bfloat16 and
/// float16: a product with the matrix, whose elements are exact, rounded once (as comfy-kitchen does).
at::Tensor rotated(const at::Tensor& x, int64_t group);

/// Bytes [rows, cols] of block scales in the layout of cuBLASLt (formats/common/swizzle.h), and back. A flat buffer of
/// up(rows, 128) * up(cols, 4) bytes.
at::Tensor swizzled(const at::Tensor& scales);
at::Tensor unswizzled(const at::Tensor& buffer, int64_t rows, int64_t cols);

}  // namespace mezzotint::tensor::cuda
