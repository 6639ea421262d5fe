#pragma once
#include "mezzotint/kernel/cuda/device/groups.h"
#include "mezzotint/kernel/cuda/dispatch.h"
#include "mezzotint/kernel/cuda/groups.h"

namespace mezzotint::kernel::cuda::dispatch {

template <class Launcher>
void quantize_groups(Launcher& launcher, Group group, const Source& x, const float* tensor_scale, float floor,
                     uint8_t* codes, void* scales, const Rounding& rounding, const ElementIndex& index) {
  assert((tensor_scale != nullptr) == (group == Group::fp4_16));
  const int64_t rows = group_padded(group, x.rows), cols = group_count(group, x.cols) * group_size(group);
  if (empty(rows, cols)) return;
  // Codes lie as padded rows; the scales' own padding is zero.
  const int64_t row_codes = group_padded(group, x.cols);
  const device::GroupArgs args{.x = values(x),
                               .padded_rows = static_cast<uint32_t>(rows),
                               .padded_cols = static_cast<uint32_t>(cols),
                               .tensor_scale = tensor_scale,
                               .codes = codes,
                               .codes_stride = group == Group::fp4_16 ? row_codes / 2 : row_codes,
                               .scales = scales,
                               .floor = floor,
                               .key = rounding.key,
                               .first = index.first,
                               .row_stride = index.row_stride};
  if (group != Group::int8_128) launcher.zero(scales, group_scale_bytes(group, x.rows, x.cols));
  with_element(x.dtype, [&]<class Element> {
    with_rounding(rounding, [&]<class Mode> {
      if (group == Group::fp4_16)
        run_elements<device::QuantizeGroups<Element, device::MicroFp4, Mode>>(launcher, rows, cols, args);
      if (group == Group::fp8_32)
        run_elements<device::QuantizeGroups<Element, device::MicroFp8, Mode>>(launcher, rows, cols, args);
      if (group == Group::int8_128)
        run_elements<device::QuantizeGroups<Element, device::GroupInt8, Mode>>(launcher, rows, cols, args);
    });
  });
}

template <class Launcher>
void dequantize_groups(Launcher& launcher, Group group, const uint8_t* codes, const uint8_t* scales,
                       const float* tensor_scale, int64_t rows, int64_t cols, void* out, DType to, int64_t out_stride) {
  assert(group != Group::int8_128 && (tensor_scale != nullptr) == (group == Group::fp4_16));
  const int64_t padded = group_padded(group, cols);
  const device::GroupDecodeArgs args{.codes = codes,
                                     .codes_stride = group == Group::fp4_16 ? padded / 2 : padded,
                                     .scales = scales,
                                     .tensor_scale = tensor_scale,
                                     .rows = static_cast<uint32_t>(rows),
                                     .cols = static_cast<uint32_t>(cols),
                                     .padded_cols = static_cast<uint32_t>(padded),
                                     .out = out,
                                     .out_stride = out_stride};
  with_element(to, [&]<class Element> {
    if (group == Group::fp4_16)
      run_elements<device::DecodeGroups<device::MicroFp4, Element>>(launcher, rows, cols, args);
    if (group == Group::fp8_32)
      run_elements<device::DecodeGroups<device::MicroFp8, Element>>(launcher, rows, cols, args);
  });
}

}  // namespace mezzotint::kernel::cuda::dispatch
