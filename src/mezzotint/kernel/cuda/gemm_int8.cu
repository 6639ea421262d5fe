#include "mezzotint/kernel/cuda/gemm_int8.h"

#include "mezzotint/kernel/cuda/dispatch_gemm.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void gemm_int8_blockwise(const Int8Gemm& gemm, const float* x_scales, const float* w_scales, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::gemm_int8_blockwise(launcher, gemm, x_scales, w_scales);
}

void gemm_int8_rowwise(const Int8Gemm& gemm, const float* x_scales, const float* w_scales, int64_t w_scale_count,
                       Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::gemm_int8_rowwise(launcher, gemm, x_scales, w_scales, w_scale_count);
}

void transpose_codes(const void* x, int64_t rows, int64_t cols, int64_t stride, void* out, int64_t out_stride,
                     Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::transpose<uint8_t>(launcher, x, rows, cols, stride, out, out_stride);
}

void transpose_floats(const float* x, int64_t rows, int64_t cols, float* out, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::transpose<uint32_t>(launcher, x, rows, cols, cols, out, rows);
}

}  // namespace mezzotint::kernel::cuda
