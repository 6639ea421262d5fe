#include "mezzotint/kernel/cuda/rotate.h"

#include "mezzotint/kernel/cuda/dispatch_rotate.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void rotate_convrot(const Source& x, int64_t group, void* out, DType to, int64_t out_stride, Stream stream) {
  GpuLauncher launcher{stream};
  dispatch::rotate_convrot(launcher, x, group, out, to, out_stride);
}

}  // namespace mezzotint::kernel::cuda
