#pragma once
#include <cstdint>

#include "mezzotint/base/scalar.h"
#include "mezzotint/kernel/source.h"

/// A matrix as it lies in a file or in memory, for products that decode while they pack. Element (r, c) means
/// code(r, c) * block scale; every scale that is constant along the reduction (tensor, row, channel) is no part of it
/// but belongs to the Epilogue, so that no weight is ever rounded a second time.
namespace mezzotint::kernel {

enum class ElementCode : uint8_t {
  f32,
  bf16,
  f16,
  e4m3,
  e5m2,
  int8,
  int4,  ///< two's complement, two to a byte, even column in the low nibble
  e2m1,  ///< two to a byte, even column in the high nibble
};

/// How a block scale is stored. Of the codes above, all but f32 and f16 times an e4m3 or e8m0 scale are exact in bf16:
/// 8 significant bits suffice (2 + 4 for e2m1 with e4m3, 4 for e4m3 with a power of two), and the exponent of e8m0
/// leaves bf16's range where it leaves float32's.
enum class ScaleCode : uint8_t { none, f32, e4m3, e8m0 };

/// One scale for block_rows x block_cols elements. The scale of block (i, j) is number i * stride + j, or lies where
/// the blocked layout of block scales (32 x 4 x 4, cuBLAS) puts it if `blocked`: then block_rows is 1 and stride is the
/// number of scales of a row, rounded up to a multiple of 4. e8m0 code 0 means 0, as comfy-kitchen reads it.
struct BlockScales {
  ScaleCode code = ScaleCode::none;
  const void* data = nullptr;
  int64_t block_rows = 1, block_cols = 0;
  int64_t stride = 0;
  bool blocked = false;
};

struct Operand {
  const void* data = nullptr;  ///< element (0, 0), at any address
  ElementCode code = ElementCode::f32;
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  ///< bytes from one row to the next
  BlockScales scales;

  /// Activations or a weight of f32, bf16 or f16.
  static Operand of(const Source& x) {
    const ElementCode code = x.dtype == DType::f32    ? ElementCode::f32
                             : x.dtype == DType::bf16 ? ElementCode::bf16
                                                      : ElementCode::f16;
    return {x.data, code, x.rows, x.cols, x.stride * (x.dtype == DType::f32 ? 4 : 2), {}};
  }
};

/// Bits of one element.
MEZZOTINT_SCALAR int bits(ElementCode code) {
  if (code == ElementCode::f32) return 32;
  if (code == ElementCode::bf16 || code == ElementCode::f16) return 16;
  return code == ElementCode::int4 || code == ElementCode::e2m1 ? 4 : 8;
}

}  // namespace mezzotint::kernel
