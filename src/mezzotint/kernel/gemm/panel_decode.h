#pragma once
#include "mezzotint/kernel/gemm/operand.h"
#include "mezzotint/kernel/isa.h"

/// The decoding half of packing: a rectangle of an operand as rows of f32 or bf16 in scratch.
namespace mezzotint::kernel {

/// The part of an operand that is decoded: `rows` rows from r0, `cols` columns from c0 (even for codes of 4 bits).
struct Rectangle {
  int64_t r0 = 0, rows = 0, c0 = 0, cols = 0;
};

/// out[r * out_stride + c] = element (r0 + r, c0 + c) as float32: one multiplication, rounded where the scale is f32,
/// otherwise exact.
template <Isa I>
void decode_to_f32(const Operand& m, const Rectangle& part, float* out, int64_t out_stride);

/// The same as bf16; blocks of scales have a multiple of 16 columns, and so has c0. Without scales of f32, which the
/// caller folds in. Exact but for codes f32 and f16, which are rounded to nearest-even, and for magnitudes below
/// 2^-126, which may become zero. Level avx512bf16 only.
template <Isa I>
void decode_to_bf16(const Operand& m, const Rectangle& part, uint16_t* out, int64_t out_stride);

}  // namespace mezzotint::kernel
