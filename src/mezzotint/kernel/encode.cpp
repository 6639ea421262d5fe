#include "mezzotint/kernel/encode.h"

#include <cassert>

namespace mezzotint::kernel {

void encode_fp8(const Source& x, const Scales& multipliers, DType to, uint8_t* codes, int64_t codes_stride,
                const Rounding& rounding, const ElementIndex& index) {
  assert(to == DType::f8_e4m3 || to == DType::f8_e5m2);
  with_isa([&]<Isa I> { encode_fp8<I>(x, multipliers, to, codes, codes_stride, rounding, index); });
}

void encode_int8(const Source& x, const Scales& scales, int lowest, int8_t* codes, int64_t codes_stride,
                 const Rounding& rounding, const ElementIndex& index) {
  assert(lowest == -128 || lowest == -127);
  with_isa([&]<Isa I> { encode_int8<I>(x, scales, lowest, codes, codes_stride, rounding, index); });
}

void cast_stochastic(const Source& x, DType to, void* dst, int64_t dst_stride, const Rounding& rounding,
                     const ElementIndex& index) {
  assert(x.dtype == DType::f32 && rounding.mode == Rounding::Mode::stochastic);
  assert(to == DType::bf16 || to == DType::f16);
  with_isa([&]<Isa I> { cast_stochastic<I>(x, to, dst, dst_stride, rounding, index); });
}

}  // namespace mezzotint::kernel
