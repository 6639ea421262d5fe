#include "mezzotint/kernel/cuda/dispatch_nibbles.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void encode_int4(const Source& x, const Scales& scales, uint8_t* codes, int64_t codes_stride, const Rounding& rounding,
                 const ElementIndex& index, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::encode_int4(launcher, x, scales, codes, codes_stride, rounding, index);
}

void decode_int4(const uint8_t* codes, int64_t rows, int64_t cols, int64_t codes_stride, const Scales& scales,
                 void* out, DType to, int64_t out_stride, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::decode_int4(launcher, codes, rows, cols, codes_stride, scales, out, to, out_stride);
}

void decode_codebook(const Codebook& weight, const uint8_t* codes, void* out, DType to, int64_t out_stride,
                     Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::decode_codebook(launcher, weight, codes, out, to, out_stride);
}

void encode_codebook(const Codebook& weight, const float* x, int64_t stride, uint8_t* codes, const Rounding& rounding,
                     const ElementIndex& index, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::encode_codebook(launcher, weight, x, stride, codes, rounding, index);
}

}  // namespace mezzotint::kernel::cuda
