#include "mezzotint/kernel/gemm/int8_amx.h"

#include "mezzotint/kernel/gemm/int8_dot512.h"

namespace mezzotint::kernel {
namespace {

/// Packs columns for tdpbssd, which multiplies signed codes with signed codes.
struct SignedColumns : Vector512 {
  static constexpr int kVectors = 1, kTileRows = 32, kOffset = 0;

  MEZZOTINT_INLINE Int load_columns(const int8_t* p) { return _mm512_loadu_si512(p); }
  MEZZOTINT_INLINE Int interleave(const int8_t* p, int64_t step) { return interleaved(p, step); }
};

}  // namespace

template <>
Int8Level int8_level<kIsa>() {
  using Product = AmxProduct<HardwareTiles, SignedColumns>;
  const Int8Level vectors = int8_level<Isa::avx512vnni>();
  return {
      {Product::kRows, Product::kBlockBytes / Product::kRows, kInt8Block, Product::kDepth, vectors.shape.stored_rows},
      Product::pack_rows,
      Product::panel,
      vectors.as_stored};
}

}  // namespace mezzotint::kernel
