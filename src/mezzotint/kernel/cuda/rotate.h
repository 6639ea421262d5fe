#pragma once
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/source.h"

namespace mezzotint::kernel::cuda {

/// rotate_convrot of kernel/hadamard.h for every `group` consecutive columns: the same additions in the same order in
/// float32, then nearest-even to `to`. x.cols divides by the group, a power of 4 from 4 to 4096. `out` may be x where
/// both are float32 and lie alike; its rows are out_stride elements apart.
void rotate_convrot(const Source& x, int64_t group, void* out, DType to, int64_t out_stride, Stream stream);

}  // namespace mezzotint::kernel::cuda
