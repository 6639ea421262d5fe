#include "mezzotint/kernel/cuda/codec.h"

#include "mezzotint/kernel/cuda/dispatch.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void amax_blocks(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride,
                 uint32_t* non_finite, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::amax_blocks(launcher, x, block_rows, block_cols, out, out_stride, non_finite);
}

void scales_from_amax(float* scales, float* multipliers, int64_t count, ScaleRule rule, float largest, float floor,
                      Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::scales_from_amax(launcher, scales, multipliers, count, rule, largest, floor);
}

void encode_fp8(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding, const ElementIndex& index, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::encode_fp8(launcher, x, multipliers, to, codes, codes_stride, rounding, index);
}

void encode_int8(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                 const Rounding& rounding, const ElementIndex& index, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::encode_int8(launcher, x, scales, lowest, codes, codes_stride, rounding, index);
}

void decode(const uint8_t* codes, DType code, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
            void* out, DType to, int64_t out_stride, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::decode(launcher, codes, code, rows, cols, codes_stride, scales, out, to, out_stride);
}

}  // namespace mezzotint::kernel::cuda
