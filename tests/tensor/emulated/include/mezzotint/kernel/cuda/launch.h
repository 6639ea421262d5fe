#pragma once
#include "cuda/emulator.h"
#include "mezzotint/kernel/cuda/cuda.h"

// In place of src/mezzotint/kernel/cuda/launch.h: the .cu files start their kernels on the emulator.
namespace mezzotint::kernel::cuda {

struct GpuLauncher : test::EmulatedLauncher {
  explicit GpuLauncher(Stream) {}
};

}  // namespace mezzotint::kernel::cuda
