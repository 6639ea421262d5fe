#include "mezzotint/kernel/gemm/quantize_rows.h"

#include "mezzotint/kernel/gemm/finish.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::kernel {
namespace {

template <class Element>
[[gnu::noinline]] void read(const typename Element::Stored* __restrict x, Prologue prologue, int64_t n,
                            float* __restrict v) {
  if (prologue == Prologue::swiglu) {
    const typename Element::Stored* __restrict up = x + n;
    for (int64_t j = 0; j < n; ++j) v[j] = silu(Element::load(x[j])) * Element::load(up[j]);
  } else if (prologue == Prologue::gelu_tanh) {
    for (int64_t j = 0; j < n; ++j) v[j] = gelu_tanh(Element::load(x[j]));
  } else {
    for (int64_t j = 0; j < n; ++j) v[j] = Element::load(x[j]);
  }
}

[[gnu::noinline]] void multiply(const float* __restrict factors, int64_t n, float* __restrict v) {
  for (int64_t j = 0; j < n; ++j) v[j] = v[j] * factors[j];
}

void read_row(const Source& x, const Int8Quantization& how, int64_t row, int64_t n, float* v) {
  with_element(x.dtype, [&]<class Element> {
    read<Element>(static_cast<const typename Element::Stored*>(x.data) + row * x.stride, how.prologue, n, v);
  });
  if (how.col_scale != nullptr) multiply(how.col_scale, n, v);
  if (how.rotation != 0) rotate_convrot<kIsa>(v, n, how.rotation);
}

}  // namespace

template <>
void quantize_int8_rows<kIsa>(const Source& x, const Int8Quantization& how, const Int8BlockOutput& out, int64_t row0,
                              int64_t rows, const float* tensor_scale, float* amax, float* values) {
  const int64_t n = how.prologue == Prologue::swiglu ? x.cols / 2 : x.cols;
  const float largest = how.range.largest;
  int32_t top = 0;
  for (int64_t row = row0; row < row0 + rows; ++row) {
    Byte* codes = reinterpret_cast<Byte*>(out.codes) + row * out.stride;
    read_row(x, how, row, n, values);
    if (how.given_scale != nullptr) {
      int8_codes(n, values, *how.given_scale, how.range.lowest_given, largest, codes);
    } else if (how.scaling == Int8Scaling::block) {
      float* scales = out.scales + row * out.scales_stride;
      for (int64_t from = 0; from < n; from += kInt8Block) {
        const int64_t count = smaller(kInt8Block, n - from);
        scales[from / kInt8Block] = int8_scale(count, values + from, how.range);
        int8_codes(count, values + from, scales[from / kInt8Block], -largest, largest, codes + from);
      }
    } else if (how.scaling == Int8Scaling::row) {
      const float scale = int8_scale(n, values, how.range);
      out.scales[row * out.scales_stride] = scale;
      int8_codes(n, values, scale, -largest, largest, codes);
    } else if (tensor_scale != nullptr) {
      int8_codes(n, values, *tensor_scale, -largest, largest, codes);
    } else {
      const int32_t magnitude = finite_magnitude(n, values);
      top = top > magnitude ? top : magnitude;
    }
  }
  if (amax != nullptr) *amax = float_from_bits(static_cast<uint32_t>(top));
}

}  // namespace mezzotint::kernel
