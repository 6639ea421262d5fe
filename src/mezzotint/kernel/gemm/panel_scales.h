#pragma once
// Block scales as floats; for *.isa.cpp files: always inlined or of internal linkage.
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e8m0.h"
#include "mezzotint/kernel/gemm/operand.h"
#include "mezzotint/kernel/isa_elements.h"

namespace mezzotint::kernel {
namespace {

/// Scales from their codes, which lie together: loops that vectorize.
[[gnu::noinline, maybe_unused]] void decode_scales(ScaleCode code, const Byte* __restrict codes, int64_t count,
                                                   float* __restrict out) {
  if (code == ScaleCode::e4m3) {
    for (int64_t j = 0; j < count; ++j) out[j] = E4m3::decode(codes[j]);
  } else {
    for (int64_t j = 0; j < count; ++j) out[j] = codes[j] == 0 ? 0.0f : E8m0::decode(codes[j]);
  }
}

/// Scales of blocks j0 .. j0 + count - 1 of the row of blocks that holds row r.
[[gnu::noinline, maybe_unused]] void read_scales(const BlockScales& scales, int64_t r, int64_t j0, int64_t count,
                                                 float* out) {
  constexpr int64_t kGroups = 16;
  const int64_t i = r / scales.block_rows;
  const Byte* data = static_cast<const Byte*>(scales.data);
  if (scales.code == ScaleCode::f32) {
    const Dword* row = static_cast<const Dword*>(scales.data) + i * scales.stride + j0;
    for (int64_t j = 0; j < count; ++j) out[j] = float_from_bits(row[j]);
    return;
  }
  if (!scales.blocked) return decode_scales(scales.code, data + i * scales.stride + j0, count, out);
  // In the blocked layout 4 scales of a row lie together, in tiles of 128 rows x 4 scales.
  const Byte* row = data + i / 128 * (scales.stride / 4) * 512 + i % 32 * 16 + i % 128 / 32 * 4;
  for (int64_t j = j0; j < j0 + count;) {
    Byte codes[4 * kGroups];
    const int64_t group = j / 4, groups = smaller(kGroups, (j0 + count + 3) / 4 - group);
    for (int64_t g = 0; g < groups; ++g)
      reinterpret_cast<Dword*>(codes)[g] = *reinterpret_cast<const Dword*>(row + (group + g) * 512);
    const int64_t end = smaller(4 * (group + groups), j0 + count);
    decode_scales(scales.code, codes + j % 4, end - j, out + (j - j0));
    j = end;
  }
}

}  // namespace
}  // namespace mezzotint::kernel
