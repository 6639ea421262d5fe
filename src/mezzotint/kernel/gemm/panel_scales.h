#pragma once
// Block scales as floats; for *.isa.cpp files: always inlined or of internal linkage.
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/kernel/gemm/operand.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// Scales of blocks j0 .. j0 + count - 1 of the row of blocks that holds row r.
[[gnu::noinline, maybe_unused]] void read_scales(const BlockScales& scales, int64_t r, int64_t j0, int64_t count,
                                                 float* out) {
  const int64_t i = r / scales.block_rows;
  if (scales.code == ScaleCode::f32) {
    const Dword* row = static_cast<const Dword*>(scales.data) + i * scales.stride + j0;
    for (int64_t j = 0; j < count; ++j) out[j] = float_from_bits(row[j]);
    return;
  }
  // In the blocked layout 4 scales of a row lie together, in tiles of 128 rows x 4 scales.
  const int64_t tile = i / 128 * (scales.stride / 4) * 512 + i % 32 * 16 + i % 128 / 32 * 4;
  const Byte* row = static_cast<const Byte*>(scales.data) + (scales.blocked ? tile : i * scales.stride);
  for (int64_t j = 0; j < count; ++j) {
    const int64_t at = j0 + j;
    const uint8_t code = row[scales.blocked ? at / 4 * 512 + at % 4 : at];
    out[j] = scales.code == ScaleCode::e4m3 ? E4m3::decode(code) : code == 0 ? 0.0f : E8m0::decode(code);
  }
}

}  // namespace
}  // namespace mezzotint::kernel
