#pragma once
#include "mezzotint/formats/format.h"
#include "mezzotint/kernel/source.h"

/// What formats of 8-bit floats with float32 scales share, whatever the scales' geometry: weight = code * scale,
/// code = fp8(clamp(w * r, -MAX, MAX)) with r = 1 / scale, a rounding of its own.
///
/// The geometry is the layout's: one scale for every block_rows x block_cols (0 = the whole dimension) of an expert, in
/// tensors[1], row-major and without gaps; the blocks divide the weight.
namespace mezzotint::formats::fp8_codes {

/// Scales of the rectangle whose first element is (row0, col0). Blocks of experts just count on, since they lie below
/// one another.
kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t col0);

/// `D` is f8_e4m3 or f8_e5m2.
template <DType D>
void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes);
/// `Out` is float, or uint16_t for bf16.
template <DType D, class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride);
template <DType D>
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound);

/// Activations are rounded to the same codes where scales cover whole rows; loaders of others dequantize.
template <DType D>
MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert);

bool scale_by_power_of_two(const Layout& layout, Parameters& parameters, int exponent);
void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems);

/// Half a step of the code for a value x under a scale, and what lies beyond the largest code: the part of a bound that
/// every format with such codes has.
template <DType D>
float element_bound(float value, float scale);

/// Whether files are around that have this label over 8-bit float codes and float32 scales: converters mix them up.
bool is_family(std::string_view label);

}  // namespace mezzotint::formats::fp8_codes
