// bf16 on tile registers: TDPBF16PS takes subnormal inputs and results as zero, as VDPBF16PS does.
#include "mezzotint/kernel/gemm/bf16_amx.h"
#include "mezzotint/kernel/gemm/bf16_packing.h"

namespace mezzotint::kernel {
namespace {

using Product = AmxBf16<HardwareTiles>;

void multiply(int64_t /*rows*/, int64_t dwords, const void* a, const void* panel, float* c, int64_t c_stride,
              const float* fold, bool accumulate) {
  HardwareTiles tiles;
  Product::multiply(tiles, dwords, a, panel, c, c_stride, fold, accumulate);
}

void begin() {
  HardwareTiles().configure();
}
void end() {
  HardwareTiles().release();
}

}  // namespace

template <>
FloatKernels bf16_kernels<kIsa>() {
  FloatKernels kernels = bf16_packing();
  kernels.isa = kIsa;
  kernels.rows = Product::kRows;
  kernels.columns = Product::kColumns;
  kernels.granule = Product::kGranule;
  kernels.full_tiles = true;
  kernels.multiply = multiply;
  kernels.begin = begin;
  kernels.end = end;
  return kernels;
}

}  // namespace mezzotint::kernel
