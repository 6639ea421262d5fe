#pragma once
#include <c10/core/DeviceGuard.h>

#include "mezzotint/kernel/cuda/cuda.h"

/// What is known of a GPU, without a header of CUDA: this compiles with PyTorch's wheel for the CPU.
namespace mezzotint::tensor::cuda {

struct Gpu {
  int capability = 0;    ///< compute capability times 10 (89, 120); 0 = no NVIDIA GPU, or no driver tells
  int runtime = 0;       ///< CUDA that libtorch was built with, 12080 for 12.8; 0 = none
  bool kernels = false;  ///< whether kernel/cuda is compiled in and runs there
};

/// Asks the driver (libcuda.so.1), the first time for each device.
Gpu gpu_of(at::Device device);

/// While it lives, this thread's calls of kernel/cuda go to the device; `stream` is libtorch's current one there.
class Launch {
 public:
  explicit Launch(at::Device device);
  kernel::cuda::Stream stream = nullptr;

 private:
  c10::OptionalDeviceGuard guard_;
};

}  // namespace mezzotint::tensor::cuda
