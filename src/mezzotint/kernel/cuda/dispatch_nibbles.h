#pragma once
#include "mezzotint/kernel/cuda/device/nibbles.h"
#include "mezzotint/kernel/cuda/dispatch.h"

namespace mezzotint::kernel::cuda::dispatch {

template <class Launcher>
void encode_int4(Launcher& launcher, const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride,
                 const Rounding& rounding, const ElementIndex& index) {
  assert(x.cols % 2 == 0);
  const auto args = encode_args(x, scales, codes, codes_stride, rounding, index);
  with_element(x.dtype, [&]<class Element> {
    with_rounding(rounding, [&]<class Mode> {
      run_elements<device::Encode<Element, device::Int4Code, Mode>>(launcher, x.rows, x.cols, args);
    });
  });
}

template <class Launcher>
void decode_int4(Launcher& launcher, const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride,
                 const Scales& scales, void* out, DType to, int64_t out_stride) {
  assert(cols % 2 == 0);
  const auto args = decode_args(codes, rows, cols, codes_stride, scales, out, out_stride);
  with_element(
      to, [&]<class Element> { run_elements<device::Decode<device::Int4Code, Element>>(launcher, rows, cols, args); });
}

inline device::CodebookArgs codebook_args(const Codebook& weight, uint8_t* codes, const void* x, int64_t stride) {
  assert(weight.group > 0 && weight.group % device::kRun == 0 && weight.cols % weight.group == 0);
  return {.codes = codes,
          .rows = static_cast<uint32_t>(weight.rows),
          .cols = static_cast<uint32_t>(weight.cols),
          .group = static_cast<uint32_t>(weight.group),
          .relative = weight.relative,
          .channel = weight.channel,
          .codebook = weight.codebook,
          .correction = weight.correction,
          .x = x,
          .stride = stride};
}

template <class Launcher>
void decode_codebook(Launcher& launcher, const Codebook& weight, const uint8_t* codes, void* out, DType to,
                     int64_t out_stride) {
  const auto args = codebook_args(weight, const_cast<uint8_t*>(codes), out, out_stride);
  with_element(to, [&]<class Element> {
    run_elements<device::DecodeCodebook<Element>>(launcher, weight.rows, weight.cols, args);
  });
}

template <class Launcher>
void encode_codebook(Launcher& launcher, const Codebook& weight, const float* x, int64_t stride, uint8_t* codes,
                     const Rounding& rounding, const ElementIndex& index) {
  auto args = codebook_args(weight, codes, x, stride);
  args.key = rounding.key;
  args.first = index.first;
  args.row_stride = index.row_stride;
  with_rounding(rounding, [&]<class Mode> {
    run_elements<device::EncodeCodebook<Mode>>(launcher, weight.rows, weight.cols, args);
  });
}

}  // namespace mezzotint::kernel::cuda::dispatch
