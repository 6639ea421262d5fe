#include "mezzotint/formats/matmul_inputs.h"

#include <algorithm>
#include <cassert>

#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/formats/scratch.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/gemm/quantize_float.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/mx.h"
#include "mezzotint/kernel/reduce.h"

namespace mezzotint::formats {
namespace {

using kernel::Operand;
using kernel::Source;

constexpr float kLargestInt4 = 7.0f;
/// The smallest scale whose reciprocal is finite.
constexpr float kSmallest = 0x1p-126f;

/// f(part of x, first row) for runs of rows, on several threads.
template <class F>
void for_rows(const Source& x, int threads, F&& f) {
  for_row_runs(x.rows, threads, [&](int64_t row0, int64_t rows) { f(rows_of(x, row0, rows), row0); });
}

/// The quantizers of kernel/gemm on several threads; a scale over all of x needs all of x. `quantize` takes a part of x
/// and its first row, and returns the operand of that part.
template <class F>
Operand in_runs(const Source& x, const InputScaling& scaling, int threads, F&& quantize) {
  if (scaling.per_tensor && scaling.given == nullptr) return quantize(x, 0);
  Operand whole;
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    const Operand operand = quantize(part, row0);
    if (row0 == 0) whole = operand;
  });
  whole.rows = x.rows;
  return whole;
}

kernel::FloatScaling float_scaling(const InputScaling& scaling) {
  using Of = kernel::FloatScaling::Of;
  if (scaling.given) return {Of::given, *scaling.given};
  return {scaling.per_tensor ? Of::tensor : Of::row, 1.0f};
}

QuantizedInput fp8(const Source& x, DType dtype, const InputScaling& scaling, Scratch scratch, int threads) {
  auto* scales = scratch.take<float>(x.rows);
  auto* codes = scratch.take<uint8_t>(x.rows * x.cols);
  const Operand operand = in_runs(x, scaling, threads, [&](const Source& part, int64_t row0) {
    return kernel::quantize_fp8(part, dtype, float_scaling(scaling), scales + row0, codes + row0 * x.cols);
  });
  return {operand, scales};
}

QuantizedInput fp4(const Source& x, const InputScaling& scaling, Scratch scratch, int threads) {
  const int64_t blocks = divide_up(x.cols, kernel::kFp4Block), stride = divide_up(x.cols, 2);
  auto* row_scales = scratch.take<float>(x.rows);
  auto* scales = scratch.take<uint8_t>(x.rows * blocks);
  auto* codes = scratch.take<uint8_t>(x.rows * stride);
  const Operand operand = in_runs(x, scaling, threads, [&](const Source& part, int64_t row0) {
    return kernel::quantize_fp4(part, float_scaling(scaling), row_scales + row0, codes + row0 * stride,
                                scales + row0 * blocks);
  });
  return {operand, row_scales};
}

QuantizedInput mx(const Source& x, Scratch scratch, int threads) {
  const int64_t blocks = divide_up(x.cols, kernel::kMxBlock);
  auto* scales = scratch.take<uint8_t>(x.rows * blocks);
  auto* codes = scratch.take<uint8_t>(x.rows * x.cols);
  const Operand operand = in_runs(x, {}, threads, [&](const Source& part, int64_t row0) {
    return kernel::quantize_mx(part, codes + row0 * x.cols, scales + row0 * blocks);
  });
  return {operand, nullptr};
}

QuantizedInput int4(const Source& x, const InputScaling& scaling, Scratch scratch, int threads) {
  const int64_t stride = divide_up(x.cols, 2);
  auto* scales = scratch.take<float>(x.rows);
  auto* codes = scratch.take<uint8_t>(x.rows * stride);
  std::fill_n(codes, x.rows * stride, uint8_t{0});
  if (scaling.given) {
    std::fill_n(scales, x.rows, *scaling.given);
  } else {
    for_rows(x, threads, [&](const Source& part, int64_t row0) { kernel::amax_rows(part, scales + row0); });
    if (scaling.per_tensor) std::fill_n(scales, x.rows, *std::max_element(scales, scales + x.rows));
    std::for_each(scales, scales + x.rows, [&](float& s) { s = std::max(s / kLargestInt4, kSmallest); });
  }
  for_rows(x, threads, [&](const Source& part, int64_t row0) {
    kernel::encode_int4(part, kernel::Scales::per_row(scales, row0), codes + row0 * stride, stride, 0);
  });
  return {{codes, kernel::ElementCode::int4, x.rows, x.cols, stride, {}}, scales};
}

}  // namespace

size_t quantized_input_bytes(InputCodes kind, int64_t rows, int64_t cols) {
  if (kind == InputCodes::none || kind == InputCodes::int8 || kind == InputCodes::int8_blocks) return 0;
  // At most a byte per code, a scale byte for every 16 columns, a float per row, each rounded up.
  return scratch_bytes<uint8_t>(rows * round_up_to(cols, 2)) + scratch_bytes<uint8_t>(rows * divide_up(cols, 16)) +
         scratch_bytes<float>(rows);
}

QuantizedInput quantize_input(const Source& x, InputCodes kind, const InputScaling& scaling,
                              std::span<std::byte> scratch, int threads) {
  assert(scratch.size() >= quantized_input_bytes(kind, x.rows, x.cols));
  const Scratch room(scratch);
  switch (kind) {
    case InputCodes::fp8_e4m3:
      return fp8(x, DType::f8_e4m3, scaling, room, threads);
    case InputCodes::fp8_e5m2:
      return fp8(x, DType::f8_e5m2, scaling, room, threads);
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
