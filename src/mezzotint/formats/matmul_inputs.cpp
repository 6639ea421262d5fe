#include "mezzotint/formats/matmul_inputs.h"

#include <cassert>

#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/scratch.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/gemm/gemm_threads.h"
#include "mezzotint/kernel/mx.h"

namespace mezzotint::formats {
namespace {

using kernel::FloatScaling;
using kernel::Operand;
using kernel::Source;

/// The quantizers of kernel/gemm on several threads; a scale over all of x needs all of x. `quantize` takes a part of x
/// and its first row, and returns the operand of that part.
template <class F>
Operand in_runs(const Source& x, const FloatScaling& scaling, int threads, F&& quantize) {
  if (scaling.of == FloatScaling::Of::tensor) return quantize(x, 0);
  Operand whole;
  kernel::parallel_row_runs(x.rows, threads, [&](int64_t row0, int64_t rows) {
    const Operand operand = quantize(rows_of(x, row0, rows), row0);
    if (row0 == 0) whole = operand;
  });
  whole.rows = x.rows;
  return whole;
}

QuantizedInput fp8(const Source& x, DType dtype, const FloatScaling& scaling, Scratch scratch, int threads) {
  auto* scales = scratch.take<float>(x.rows);
  auto* codes = scratch.take<uint8_t>(x.rows * x.cols);
  const Operand operand = in_runs(x, scaling, threads, [&](const Source& part, int64_t row0) {
    return kernel::quantize_fp8(part, dtype, scaling, scales + row0, codes + row0 * x.cols);
  });
  return {operand, scales};
}

QuantizedInput fp4(const Source& x, const FloatScaling& scaling, Scratch scratch, int threads) {
  const int64_t blocks = divide_up(x.cols, kernel::kFp4Block), stride = divide_up(x.cols, 2);
  auto* row_scales = scratch.take<float>(x.rows);
  auto* scales = scratch.take<uint8_t>(x.rows * blocks);
  auto* codes = scratch.take<uint8_t>(x.rows * stride);
  const Operand operand = in_runs(x, scaling, threads, [&](const Source& part, int64_t row0) {
    return kernel::quantize_fp4(part, scaling, row_scales + row0, codes + row0 * stride, scales + row0 * blocks);
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

}  // namespace

size_t quantized_input_bytes(InputCodes kind, int64_t rows, int64_t cols) {
  if (kind == InputCodes::none || is_integer(kind)) return 0;
  // At most a byte per code, a scale byte for every 16 columns, a float per row, each rounded up.
  return scratch_bytes<uint8_t>(rows * round_up_to(cols, 2)) + scratch_bytes<uint8_t>(rows * divide_up(cols, 16)) +
         scratch_bytes<float>(rows);
}

QuantizedInput quantize_input(const Source& x, InputCodes kind, const FloatScaling& scaling,
                              std::span<std::byte> scratch, int threads) {
  assert(scratch.size() >= quantized_input_bytes(kind, x.rows, x.cols));
  const Scratch room(scratch);
  switch (kind) {
    case InputCodes::fp8_e4m3:
      return fp8(x, DType::f8_e4m3, scaling, room, threads);
    case InputCodes::fp8_e5m2:
      return fp8(x, DType::f8_e5m2, scaling, room, threads);
    case InputCodes::fp4:
      return fp4(x, scaling, room, threads);
    case InputCodes::mx:
      return mx(x, room, threads);
    case InputCodes::none:
    case InputCodes::int8:
    case InputCodes::int8_blocks:
    case InputCodes::int4:
      break;
  }
  assert(false);
  return {};
}

}  // namespace mezzotint::formats
