#include "mezzotint/kernel/cuda/groups.h"

#include "mezzotint/kernel/cuda/dispatch_groups.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void quantize_groups(Group group, const Source& x, const float* tensor_scale, float floor, uint8_t* codes, void* scales,
                     const Rounding& rounding, const ElementIndex& index, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::quantize_groups(launcher, group, x, tensor_scale, floor, codes, scales, rounding, index);
}

void dequantize_groups(Group group, const uint8_t* codes, const uint8_t* scales, const float* tensor_scale,
                       int64_t rows, int64_t cols, void* out, DType to, int64_t out_stride, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::dequantize_groups(launcher, group, codes, scales, tensor_scale, rows, cols, out, to, out_stride);
}

}  // namespace mezzotint::kernel::cuda
