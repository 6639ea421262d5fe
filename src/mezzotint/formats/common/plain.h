#pragma once
#include "mezzotint/formats/format.h"

/// Plain float dtypes as formats: any shape, one element per value, no parameters, no marker. A format row gives its
/// dtype as a template argument, so that every function is a plain pointer.
///
/// Encoding is the IEEE conversion (as torch's .to(dtype)): nearest-even, subnormals and signed zeros kept, values
/// beyond the largest become inf, NaN stays NaN. The source's own dtype is copied bit for bit.
namespace mezzotint::formats {

template <DType D>
struct Plain {
  static Description describe(const Format& format, const LayerFacts& facts, const Options& options);
  static void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
                     std::byte* codes);
  static void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
                     int64_t cols, const std::byte* codes, float* out, int64_t out_stride);
  static void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound);
  static MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert);
  static Recognition recognise(const Format& format, const StoredLayer& layer);
};

extern template struct Plain<DType::bf16>;
extern template struct Plain<DType::f16>;
extern template struct Plain<DType::f32>;

}  // namespace mezzotint::formats
