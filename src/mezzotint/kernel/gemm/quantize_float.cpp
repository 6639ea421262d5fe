#include "mezzotint/kernel/gemm/quantize_float.h"

#include <algorithm>
#include <cassert>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/base/round_up.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/mx.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::kernel {
namespace {

/// The smallest scale whose reciprocal is finite.
constexpr float kSmallest = 0x1p-126f;

/// row_scales[r] = max(amax / largest, smallest), or what is given.
void choose_scales(const Source& x, const FloatScaling& scaling, float largest, float smallest, float* row_scales) {
  if (scaling.of == FloatScaling::Of::row) {
    amax_rows(x, row_scales);
    for (int64_t r = 0; r < x.rows; ++r) row_scales[r] = std::max(row_scales[r] / largest, smallest);
    return;
  }
  const bool given = scaling.of == FloatScaling::Of::given;
  std::fill_n(row_scales, x.rows, given ? scaling.scale : std::max(amax(x).value / largest, smallest));
}

}  // namespace

Operand quantize_fp8(const Source& x, DType to, const FloatScaling& scaling, float* row_scales, uint8_t* codes) {
  assert(to == DType::f8_e4m3 || to == DType::f8_e5m2);
  const bool e4m3 = to == DType::f8_e4m3;
  choose_scales(x, scaling, e4m3 ? E4m3::kMax : E5m2::kMax, kSmallest, row_scales);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float multiplier = 1.0f / row_scales[r];
    encode_fp8(rows_of(x, r, 1), Scales::scalar(&multiplier), to, codes + r * x.cols, x.cols);
  }
  return {codes, e4m3 ? ElementCode::e4m3 : ElementCode::e5m2, x.rows, x.cols, x.cols, {}};
}

Operand quantize_fp4(const Source& x, const FloatScaling& scaling, float* row_scales, uint8_t* codes,
                     uint8_t* block_scales) {
  constexpr int64_t kBlocks = 64;
  const int64_t code_bytes = divide_up(x.cols, 2), blocks = divide_up(x.cols, kFp4Block);
  choose_scales(x, scaling, E4m3::kMax * 6, 0x1p-110f, row_scales);
  for (int64_t r = 0; r < x.rows; ++r) {
    const Source row = rows_of(x, r, 1);
    uint8_t* to = codes + r * code_bytes;
    uint8_t* scales = block_scales + r * blocks;
    fp4_scales(row, row_scales[r], scales, blocks);
    if (x.cols % 2 != 0) to[code_bytes - 1] = 0;
    float products[kBlocks];
    for (int64_t b = 0; b < blocks; b += kBlocks) {
      const int64_t count = std::min(kBlocks, blocks - b), col = b * kFp4Block;
      for (int64_t i = 0; i < count; ++i) products[i] = row_scales[r] * E4m3::decode(scales[b + i]);
      Source part = row;
      part.data = static_cast<const uint8_t*>(row.data) + col * (x.dtype == DType::f32 ? 4 : 2);
      part.cols = std::min(x.cols - col, count * kFp4Block);
      encode_fp4(part, Scales::blocks(products, count, 1, kFp4Block), to + col / 2, code_bytes);
    }
  }
  return {codes,  ElementCode::e2m1, x.rows,
          x.cols, code_bytes,        {ScaleCode::e4m3, block_scales, 1, kFp4Block, blocks, false}};
}

Operand quantize_mx(const Source& x, uint8_t* codes, uint8_t* block_scales) {
  const int64_t blocks = divide_up(x.cols, kMxBlock);
  mx_scales(x, block_scales, blocks);
  encode_mx(x, block_scales, blocks, 0, codes, x.cols);
  return {
      codes, ElementCode::e4m3, x.rows, x.cols, x.cols, {ScaleCode::e8m0, block_scales, 1, kMxBlock, blocks, false}};
}

}  // namespace mezzotint::kernel
