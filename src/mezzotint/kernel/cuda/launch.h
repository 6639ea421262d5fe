#pragma once
#include <cuda_runtime.h>

#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/cuda/device/hardware.h"

/// For the .cu files of this folder.
namespace mezzotint::kernel::cuda {

/// Throws Error "cuda-failed" unless `status` is success.
void check(cudaError_t status, const char* what);

/// The launcher of dispatch.h on a GPU.
struct GpuLauncher {
  Stream stream;

  template <class Body>
  void run(device::Grid grid, const typename Body::Args& args) {
    device::kernel<Body><<<dim3(grid.x, grid.y), Body::kThreads, 0, stream>>>(args);
    check(cudaGetLastError(), "starting a kernel");
  }
  void zero(void* memory, uint64_t bytes) {
    check(cudaMemsetAsync(memory, 0, bytes, stream), "clearing device memory");
  }
};

}  // namespace mezzotint::kernel::cuda
