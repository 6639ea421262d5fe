#pragma once
#include <cassert>

#include "mezzotint/base/rounding.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/device/codec.h"
#include "mezzotint/kernel/cuda/device/elements.h"
#include "mezzotint/kernel/source.h"

/// From the arguments of the public headers to kernels and their arguments. A launcher has
/// run<Body>(grid, args) and zero(pointer, bytes): the GPU's is launch.h, the tests have another.
namespace mezzotint::kernel::cuda::dispatch {

/// Calls f.operator()<Element>() for f32, bf16 or f16.
template <class F>
void with_element(DType dtype, F&& f) {
  assert(dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16);
  if (dtype == DType::bf16) return f.template operator()<device::Brain>();
  if (dtype == DType::f16) return f.template operator()<device::Half>();
  f.template operator()<device::F32>();
}
template <class F>
void with_rounding(const Rounding& rounding, F&& f) {
  if (rounding.mode == Rounding::Mode::stochastic) return f.template operator()<device::Stochastic>();
  f.template operator()<device::Nearest>();
}

inline bool empty(int64_t rows, int64_t cols) {
  assert(rows >= 0 && cols >= 0 && rows < INT32_MAX && cols < INT32_MAX);
  assert(cols == 0 || rows <= (int64_t{1} << 34) / cols);
  return rows == 0 || cols == 0;
}
inline device::Values values(const Source& x) {
  return {x.data, static_cast<uint32_t>(x.rows), static_cast<uint32_t>(x.cols), x.stride};
}
inline device::BlockScales block_scales(const Scales& scales) {
  assert(scales.row0 == 0 && scales.col0 == 0);
  const auto size = [](int64_t block) { return static_cast<uint32_t>(block < INT32_MAX ? block : INT32_MAX); };
  return {scales.data, size(scales.block_rows), size(scales.block_cols), scales.stride};
}
inline device::EncodeArgs encode_args(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride,
                                      const Rounding& rounding, const ElementIndex& index) {
  return {.x = values(x),
          .scales = block_scales(scales),
          .codes = codes,
          .codes_stride = codes_stride,
          .lowest = 0,
          .key = rounding.key,
          .first = index.first,
          .row_stride = index.row_stride};
}
inline device::DecodeArgs decode_args(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride,
                                      const Scales& scales, void* out, int64_t out_stride) {
  return {.codes = codes,
          .rows = static_cast<uint32_t>(rows),
          .cols = static_cast<uint32_t>(cols),
          .codes_stride = codes_stride,
          .scales = block_scales(scales),
          .out = out,
          .out_stride = out_stride};
}

/// Runs an element-wise body over a matrix.
template <class Body, class Launcher>
void run_elements(Launcher& launcher, int64_t rows, int64_t cols, const typename Body::Args& args) {
  if (empty(rows, cols)) return;
  launcher.template run<Body>(
      device::element_grid(static_cast<uint32_t>(rows), static_cast<uint32_t>(cols), Body::kThreads), args);
}

template <class Launcher>
void amax_blocks(Launcher& launcher, const Source& x, int64_t block_rows, int64_t block_cols, float* out,
                 int64_t out_stride, uint32_t* non_finite) {
  if (block_rows == 0 || block_rows > x.rows) block_rows = x.rows > 0 ? x.rows : 1;
  if (block_cols == 0 || block_cols > x.cols) block_cols = x.cols > 0 ? x.cols : 1;
  const int64_t down = (x.rows + block_rows - 1) / block_rows, across = (x.cols + block_cols - 1) / block_cols;
  for (int64_t r = 0; r < down && out_stride != across; ++r)
    launcher.zero(out + r * out_stride, static_cast<uint64_t>(across) * sizeof(float));
  if (out_stride == across) launcher.zero(out, static_cast<uint64_t>(down * across) * sizeof(float));
  if (empty(x.rows, x.cols)) return;

  // Pieces of about 16384 values: enough for a block of threads, few enough to fill a GPU with a small weight.
  constexpr int64_t kPiece = 16384;
  const int64_t tile_cols = block_cols < kPiece ? block_cols : kPiece;
  int64_t tile_rows = kPiece / tile_cols;
  if (tile_rows > block_rows) tile_rows = block_rows;
  const int64_t tiles_down = (block_rows + tile_rows - 1) / tile_rows;
  const int64_t tiles_across = (block_cols + tile_cols - 1) / tile_cols;
  const auto narrow = [](int64_t n) { return static_cast<uint32_t>(n); };
  const device::AmaxArgs args{.x = values(x),
                              .block_rows = narrow(block_rows),
                              .block_cols = narrow(block_cols),
                              .tile_rows = narrow(tile_rows),
                              .tile_cols = narrow(tile_cols),
                              .tiles_down = narrow(tiles_down),
                              .tiles_across = narrow(tiles_across),
                              .blocks_across = narrow(across),
                              .out = reinterpret_cast<uint32_t*>(out),
                              .out_stride = out_stride,
                              .non_finite = non_finite};
  const int64_t pieces = down * tiles_down * across * tiles_across;
  assert(pieces < INT32_MAX);
  with_element(x.dtype, [&]<class Element> {
    launcher.template run<device::AmaxBlocks<Element>>({narrow(pieces), 1}, args);
  });
}

template <class Launcher>
void scales_from_amax(Launcher& launcher, float* scales, float* multipliers, int64_t count, ScaleRule rule,
                      float largest, float floor) {
  if (count == 0) return;
  const auto n = static_cast<uint32_t>(count);
  using Body = device::ScalesFromAmax;
  launcher.template run<Body>({(n + Body::kThreads - 1) / Body::kThreads, 1},
                              {.scales = scales,
                               .multipliers = multipliers,
                               .count = n,
                               .rule = static_cast<device::ScaleRule>(rule),
                               .largest = largest,
                               .floor = floor});
}

template <class Launcher>
void encode_fp8(Launcher& launcher, const Source& x, const Scales& multipliers, DType to, uint8_t* codes,
                int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  assert(to == DType::f8_e4m3 || to == DType::f8_e5m2);
  const auto args = encode_args(x, multipliers, codes, codes_stride, rounding, index);
  with_element(x.dtype, [&]<class Element> {
    with_rounding(rounding, [&]<class Mode> {
      if (to == DType::f8_e4m3) {
        run_elements<device::Encode<Element, device::FloatCode<E4m3>, Mode>>(launcher, x.rows, x.cols, args);
      } else {
        run_elements<device::Encode<Element, device::FloatCode<E5m2>, Mode>>(launcher, x.rows, x.cols, args);
      }
    });
  });
}

template <class Launcher>
void encode_int8(Launcher& launcher, const Source& x, const Scales& scales, int lowest, int8_t* codes,
                 int64_t codes_stride, const Rounding& rounding, const ElementIndex& index) {
  assert(lowest == -128 || lowest == -127);
  auto args = encode_args(x, scales, reinterpret_cast<uint8_t*>(codes), codes_stride, rounding, index);
  args.lowest = lowest;
  with_element(x.dtype, [&]<class Element> {
    with_rounding(rounding, [&]<class Mode> {
      run_elements<device::Encode<Element, device::IntegerCode, Mode>>(launcher, x.rows, x.cols, args);
    });
  });
}

template <class Launcher>
void decode(Launcher& launcher, const uint8_t* codes, DType code, int64_t rows, int64_t cols, int64_t codes_stride,
            const Scales& scales, void* out, DType to, int64_t out_stride) {
  assert(code == DType::f8_e4m3 || code == DType::f8_e5m2 || code == DType::i8);
  const auto args = decode_args(codes, rows, cols, codes_stride, scales, out, out_stride);
  with_element(to, [&]<class Element> {
    if (code == DType::i8) run_elements<device::Decode<device::IntegerCode, Element>>(launcher, rows, cols, args);
    if (code == DType::f8_e4m3)
      run_elements<device::Decode<device::FloatCode<E4m3>, Element>>(launcher, rows, cols, args);
    if (code == DType::f8_e5m2)
      run_elements<device::Decode<device::FloatCode<E5m2>, Element>>(launcher, rows, cols, args);
  });
}

}  // namespace mezzotint::kernel::cuda::dispatch
