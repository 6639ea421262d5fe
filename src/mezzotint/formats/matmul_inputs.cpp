#include "mezzotint/formats/matmul_inputs.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <vector>

#include "mezzotint/formats/parallel.h"
#include "mezzotint/formats/scratch.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/mx.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {
namespace {

using kernel::ElementCode;
using kernel::ScaleCode;
using kernel::Scales;
using kernel::Source;

constexpr float kLargestE4m3 = 448.0f, kLargestE5m2 = 57344.0f, kLargestInt4 = 7.0f, kLargestFp4 = 2688.0f;
/// The smallest scale whose reciprocal is finite.
constexpr float kSmallest = 0x1p-126f;
constexpr int64_t kRowsPerTask = 16;

int64_t up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

Source rows_of(const Source& x, int64_t row0, int64_t rows) {
  Source part = x;
  part.data = static_cast<const std::byte*>(x.data) + row0 * x.stride * (facts(x.dtype).bits / 8);
  part.rows = rows;
  return part;
}

/// f(part of x, first row) for runs of rows, on several threads.
template <class F>
void for_rows(const Source& x, int threads, F&& f) {
  parallel_for(static_cast<size_t>((x.rows + kRowsPerTask - 1) / kRowsPerTask), threads, [&](size_t task) {
    const int64_t row0 = static_cast<int64_t>(task) * kRowsPerTask;
    f(rows_of(x, row0, std::min(kRowsPerTask, x.rows - row0)), row0);
  });
}

/// Scales of every row: its own, the tensor's, or the given one.
void scale_rows(const Source& x, float largest, const InputScaling& scaling, float* scales, int threads) {
  if (scaling.given) {
    std::fill_n(scales, x.rows, *scaling.given);
    return;
  }
  for_rows(x, threads, [&](const Source& part, int64_t row0) { kernel::amax_rows(part, scales + row0); });
  if (scaling.per_tensor) std::fill_n(scales, x.rows, *std::max_element(scales, scales + x.rows));
  std::for_each(scales, scales + x.rows, [&](float& s) { s = std::max(s / largest, kSmallest); });
}

struct Fp8Facts {
  DType dtype;
  ElementCode code;
  float largest;
};

QuantizedInput fp8(const Source& x, const Fp8Facts& fp8, const InputScaling& scaling, Scratch scratch, int threads) {
  auto* scales = scratch.take<float>(x.rows);
  auto* multipliers = scratch.take<float>(x.rows);
  auto* codes = scratch.take<uint8_t>(x.rows * x.cols);
  scale_rows(x, fp8.largest, scaling, scales, threads);
  std::transform(scales, scales + x.rows, multipliers, [](float s) { return 1.0f / s; });
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    kernel::encode_fp8(part, Scales::per_row(multipliers, row0), fp8.dtype, codes + row0 * x.cols, x.cols);
  });
  return {{codes, fp8.code, x.rows, x.cols, x.cols, {}}, scales, 1.0f};
}

QuantizedInput int4(const Source& x, const InputScaling& scaling, Scratch scratch, int threads) {
  const int64_t stride = up(x.cols, 2) / 2;
  auto* scales = scratch.take<float>(x.rows);
  auto* codes = scratch.take<uint8_t>(x.rows * stride);
  std::fill_n(codes, x.rows * stride, uint8_t{0});
  scale_rows(x, kLargestInt4, scaling, scales, threads);
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    kernel::encode_int4(part, Scales::per_row(scales, row0), codes + row0 * stride, stride, 0);
  });
  return {{codes, ElementCode::int4, x.rows, x.cols, stride, {}}, scales, 1.0f};
}

QuantizedInput fp4(const Source& x, const InputScaling& scaling, Scratch scratch, int threads) {
  const int64_t blocks = up(x.cols, kernel::kFp4Block) / kernel::kFp4Block;
  const int64_t stride = up(x.cols, 2) / 2;
  auto* tops = scratch.take<float>(x.rows);
  auto* factors = scratch.take<float>(x.rows * blocks);
  auto* scales = scratch.take<uint8_t>(x.rows * blocks);
  auto* codes = scratch.take<uint8_t>(x.rows * stride);
  std::fill_n(codes, x.rows * stride, uint8_t{0});
  float global = 1.0f;
  if (scaling.given) {
    global = *scaling.given;
  } else {
    for_rows(x, threads, [&](const Source& part, int64_t row0) { kernel::amax_rows(part, tops + row0); });
    const float amax = *std::max_element(tops, tops + x.rows);
    if (amax > 0) global = std::max(amax / kLargestFp4, std::numeric_limits<float>::denorm_min());
  }
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    uint8_t* scale = scales + row0 * blocks;
    float* factor = factors + row0 * blocks;
    kernel::fp4_scales(part, global, scale, blocks);
    kernel::decode_fp8(scale, DType::f8_e4m3, part.rows, blocks, blocks, Scales::scalar(&global), factor, blocks);
    kernel::encode_fp4(part, Scales::blocks(factor, blocks, 1, kernel::kFp4Block), codes + row0 * stride, stride);
  });
  return {{codes,
           ElementCode::e2m1,
           x.rows,
           x.cols,
           stride,
           {ScaleCode::e4m3, scales, 1, kernel::kFp4Block, blocks, false}},
          nullptr,
          global};
}

QuantizedInput mx(const Source& x, Scratch scratch, int threads) {
  const int64_t blocks = up(x.cols, kernel::kMxBlock) / kernel::kMxBlock;
  auto* scales = scratch.take<uint8_t>(x.rows * blocks);
  auto* codes = scratch.take<uint8_t>(x.rows * x.cols);
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    kernel::mx_scales(part, scales + row0 * blocks, blocks);
    kernel::encode_mx(part, scales + row0 * blocks, blocks, 0, codes + row0 * x.cols, x.cols);
  });
  return {
      {codes, ElementCode::e4m3, x.rows, x.cols, x.cols, {ScaleCode::e8m0, scales, 1, kernel::kMxBlock, blocks, false}},
      nullptr,
      1.0f};
}

}  // namespace

size_t quantized_input_bytes(InputCodes kind, int64_t rows, int64_t cols) {
  if (kind == InputCodes::none || kind == InputCodes::int8 || kind == InputCodes::int8_blocks) return 0;
  // The largest is fp8 with two floats per row; fp4 has a float and a byte for every 16 columns.
  return static_cast<size_t>(rows * (up(cols, 16) * 2 + 32)) + 8 * Scratch::kAlignment;
}

QuantizedInput quantize_input(const Source& x, InputCodes kind, const InputScaling& scaling,
                              std::span<std::byte> scratch, int threads) {
  assert(scratch.size() >= quantized_input_bytes(kind, x.rows, x.cols));
  const Scratch room(scratch);
  switch (kind) {
    case InputCodes::float8_e4m3:
      return fp8(x, {DType::f8_e4m3, ElementCode::e4m3, kLargestE4m3}, scaling, room, threads);
    case InputCodes::float8_e5m2:
      return fp8(x, {DType::f8_e5m2, ElementCode::e5m2, kLargestE5m2}, scaling, room, threads);
    case InputCodes::int4:
      return int4(x, scaling, room, threads);
    case InputCodes::fp4:
      return fp4(x, scaling, room, threads);
    case InputCodes::mx:
      return mx(x, room, threads);
    case InputCodes::none:
    case InputCodes::int8:
    case InputCodes::int8_blocks:
      break;
  }
  assert(false);
  return {};
}

}  // namespace mezzotint::formats
