#pragma once
#include "mezzotint/kernel/gemm/float_gemm.h"
#include "mezzotint/kernel/isa.h"

/// Which kernels products would run with here and now, for reports.
namespace mezzotint::kernel {

/// The level of int8_forward and int8_transposed.
Isa int8_gemm_level();

struct FloatGemmChoice {
  Isa level = Isa::scalar;
  bool bf16 = false;  ///< computes in bf16, else in float32
  enum class Obstacle : uint8_t {
    none,
    operands,  ///< an operand of float32 or float16 is not exact in bf16
    scales,    ///< block scales that the bf16 kernels cannot take
    level,     ///< no level with bf16 instructions
  };
  Obstacle obstacle = Obstacle::none;  ///< why not in bf16
};
FloatGemmChoice float_gemm_choice(const FloatGemm& product);

}  // namespace mezzotint::kernel
