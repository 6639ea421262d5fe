#include "mezzotint/kernel/gemm/int8_blocks.h"

#include "mezzotint/kernel/gemm/finish.h"
#include "mezzotint/kernel/gemm/gelu_erf.h"

namespace mezzotint::kernel {
namespace {

[[gnu::noinline]] void decode_gelu(const int8_t* __restrict codes, float scale, int64_t n, float* __restrict v) {
  for (int64_t j = 0; j < n; ++j) v[j] = gelu_tanh(static_cast<float>(codes[j]) * scale);
}

[[gnu::noinline]] void decode_gelu_erf(const int8_t* __restrict codes, float scale, int64_t n, float* __restrict v) {
  for (int64_t j = 0; j < n; ++j) v[j] = gelu_erf(static_cast<float>(codes[j]) * scale);
}

void encode(int64_t n, const float* values, int8_t* codes, float* scale) {
  *scale = int8_scale(n, values);
  int8_codes(n, values, *scale, -127.0f, 127.0f, reinterpret_cast<Byte*>(codes));
}

}  // namespace

template <>
void int8_gelu_rows<kIsa>(const Int8Codes& x, int64_t row0, int64_t rows, int64_t cols, const Int8BlockOutput& out,
                          Gelu gelu) {
  for (int64_t row = row0; row < row0 + rows; ++row)
    for (int64_t col = 0; col < cols; col += kInt8Block) {
      float values[kInt8Block];
      const int64_t n = smaller(kInt8Block, cols - col), b = col / kInt8Block;
      (gelu == Gelu::erf ? decode_gelu_erf : decode_gelu)(x.codes + row * x.stride + col,
                                                          x.scales[row * x.scales_stride + b], n, values);
      encode(n, values, out.codes + row * out.stride + col, out.scales + row * out.scales_stride + b);
    }
}

template <>
void int8_transpose_rows<kIsa>(const Int8Codes& x, int64_t row0, int64_t rows, int64_t cols,
                               const Int8BlockOutput& out) {
  constexpr int64_t kAtOnce = 16;  // columns: a cache line's neighbours are read while it is near
  for (int64_t row = row0; row < row0 + rows; row += kInt8Block) {
    const int64_t n = smaller(kInt8Block, row0 + rows - row);
    for (int64_t col = 0; col < cols; col += kAtOnce) {  // kAtOnce divides a block: one scale for each row
      float values[kAtOnce][kInt8Block];
      const int64_t some = smaller(kAtOnce, cols - col);
      for (int64_t i = 0; i < n; ++i) {
        const int8_t* codes = x.codes + (row + i) * x.stride + col;
        const float scale = x.scales[(row + i) * x.scales_stride + col / kInt8Block];
        for (int64_t j = 0; j < some; ++j) values[j][i] = static_cast<float>(codes[j]) * scale;
      }
      for (int64_t j = 0; j < some; ++j)
        encode(n, values[j], out.codes + (col + j) * out.stride + row,
               out.scales + (col + j) * out.scales_stride + row / kInt8Block);
    }
  }
}

}  // namespace mezzotint::kernel
