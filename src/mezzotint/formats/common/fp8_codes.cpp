#include "mezzotint/formats/common/fp8_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"

namespace mezzotint::formats::fp8_codes {
namespace {

template <DType D>
struct CodecOf {
  using type = E4m3;
};
template <>
struct CodecOf<DType::f8_e5m2> {
  using type = E5m2;
};

constexpr std::string_view kFamily[] = {
    "float8_e4m3fn",            // names a format: labels found in files, right or wrong
    "float8_e5m2",              // names a format: a label, as above
    "float8_e4m3fn_rowwise",    // names a format: a label, as above
    "float8_e4m3fn_blockwise",  // names a format: a label, as above
    "float8_e4m3fn_block3d",    // names a format: a label, as above
};

float multiplier(float scale) {
  const float reciprocal = 1.0f / scale;
  // Only a scale that verify refuses gets here; what it decodes to is next to nothing in any case.
  return std::isfinite(reciprocal) ? reciprocal : 0.0f;
}

}  // namespace

kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t col0) {
  const int64_t block_rows = layout.block_rows != 0 ? layout.block_rows : layout.rows;
  const int64_t across = layout.block_cols != 0 ? layout.cols / layout.block_cols : 1;
  return kernel::Scales::blocks(floats(parameters, 1), across, block_rows, layout.block_cols, row0, col0);
}

template <DType D>
void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  auto* out = reinterpret_cast<uint8_t*>(codes) + tile.col0;
  const kernel::Scales all = scales(layout, parameters, tile.row0, tile.col0);
  if (layout.block_rows == 0 && layout.block_cols == 0) {  // a tile never spans two experts
    const float r = multiplier(all.data[tile.row0 / layout.rows]);
    return kernel::encode_fp8(source(tile), kernel::Scales::scalar(&r), D, out, layout.row_bytes, rounding,
                              element_index(layout, tile));
  }
  const int64_t first = tile.row0 / all.block_rows, end = (tile.row0 + tile.rows - 1) / all.block_rows + 1;
  std::vector<float> reciprocals(static_cast<size_t>((end - first) * all.stride));
  std::transform(all.data + first * all.stride, all.data + end * all.stride, reciprocals.begin(), multiplier);
  kernel::Scales own = all;
  own.data = reciprocals.data();
  own.row0 = tile.row0 - first * all.block_rows;
  kernel::encode_fp8(source(tile), own, D, out, layout.row_bytes, rounding, element_index(layout, tile));
}

template <DType D, class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  kernel::decode_fp8(reinterpret_cast<const uint8_t*>(codes) + col0, D, rows, cols, layout.row_bytes,
                     scales(layout, parameters, row0, col0), out, out_stride);
}

// With y = w * r: r and y carry a relative error of 2^-24 each, y is clamped, rounding moves it by half a step
// (relative 2^-(M+1) above the smallest normal code, kStep / 2 below), and the product with s rounds once more.
template <DType D>
float element_bound(float value, float scale) {
  using Codec = typename CodecOf<D>::type;
  constexpr double kRelative = 1.0 / (2 << Codec::kMantissaBits);
  const double x = std::abs(static_cast<double>(value)), s = scale;
  if (!std::isfinite(x)) return std::numeric_limits<float>::infinity();
  const double step = std::max(x * kRelative, s * static_cast<double>(Codec::kStep) / 2);
  const double saturated = std::max(0.0, x - s * static_cast<double>(Codec::kMax));
  return round_up(step * (1 + 0x1p-20) + x * 0x1p-21 + saturated + 0x1p-149);
}

template <DType D>
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  const kernel::Scales all = scales(layout, parameters, tile.row0, tile.col0);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* row = all.data + (tile.row0 + r) / all.block_rows * all.stride;
    for (int64_t c = 0; c < tile.cols; ++c)
      bound[r * tile.cols + c] = element_bound<D>(
          values[r * tile.row_stride + c], row[layout.block_cols != 0 ? (tile.col0 + c) / layout.block_cols : 0]);
  }
}

template <DType D>
MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  constexpr bool kE4m3 = D == DType::f8_e4m3;
  const InputCodes input = layout.block_cols != 0 ? InputCodes::none
                           : kE4m3                ? InputCodes::fp8_e4m3
                                                  : InputCodes::fp8_e5m2;
  return matmul_forms::scaled(layout, parameters, expert, kE4m3 ? kernel::ElementCode::e4m3 : kernel::ElementCode::e5m2,
                              input);
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

bool is_family(std::string_view label) {
  return std::find(std::begin(kFamily), std::end(kFamily), label) != std::end(kFamily);
}

template void encode<DType::f8_e4m3>(const Layout&, const Parameters&, const Tile&, const Rounding&, std::byte*);
template void encode<DType::f8_e5m2>(const Layout&, const Parameters&, const Tile&, const Rounding&, std::byte*);
template void decode<DType::f8_e4m3>(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t,
                                     const std::byte*, float*, int64_t);
template void decode<DType::f8_e4m3>(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t,
                                     const std::byte*, uint16_t*, int64_t);
template void decode<DType::f8_e5m2>(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t,
                                     const std::byte*, float*, int64_t);
template void decode<DType::f8_e5m2>(const Layout&, const Parameters&, int64_t, int64_t, int64_t, int64_t,
                                     const std::byte*, uint16_t*, int64_t);
template void error_bound<DType::f8_e4m3>(const Layout&, const Parameters&, const Tile&, float*);
template void error_bound<DType::f8_e5m2>(const Layout&, const Parameters&, const Tile&, float*);
template MatmulForm matmul_form<DType::f8_e4m3>(const Layout&, const Parameters&, int64_t);
template MatmulForm matmul_form<DType::f8_e5m2>(const Layout&, const Parameters&, int64_t);
template float element_bound<DType::f8_e4m3>(float, float);
template float element_bound<DType::f8_e5m2>(float, float);

}  // namespace mezzotint::formats::fp8_codes
