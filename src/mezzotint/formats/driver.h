#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// Running a Format over a weight: the pieces a streaming pipeline puts together itself, and the whole thing in memory.
namespace mezzotint::formats {

// --- pieces -------------------------------------------------------------------------------------------------------

/// A run of whole rows of the weight, never spanning two experts.
struct RowRange {
  int64_t row0 = 0;
  int64_t rows = 0;
};

/// Cuts the weight into tiles of at most `rows` rows (at least one granule each), in order.
std::vector<RowRange> row_tiles(const Layout& layout, int64_t rows);

/// Rows of source elements (`source` wide) that fit `bytes`, as a multiple of the granule, at least one granule and at
/// most an expert's rows (rounded up to a granule).
int64_t rows_per_tile(const Layout& layout, DType source, int64_t bytes);

/// Bytes of all stored codes, padding included.
size_t codes_bytes(const Layout& layout);
/// Bytes of one stored tensor of the layout.
size_t tensor_bytes(const StoredTensor& tensor);

/// Parameter tensors, zeroed but for Format::constants; [0], the codes, is empty.
Parameters new_parameters(const Layout& layout);

/// The tile widened to float32 in `scratch`, which is resized as needed (rows packed, row_stride = cols). A float32
/// tile is copied too, so that the result may be changed.
Tile float_tile(const Tile& tile, std::vector<float>& scratch);

/// The tile that observe and encode want: the tile itself, or, where the layout is transformed, its rows widened and
/// transformed in `scratch`. Needs whole rows then.
Tile prepare_tile(const Layout& layout, const Tile& tile, std::vector<float>& scratch);

/// Encodes a tile of source values: prepare_tile, then Format::encode.
void encode_tile(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
                 std::byte* codes, std::vector<float>& scratch);

/// Decodes whole rows to values of the weight: Format::decode, then the inverse transform. `codes` points at the stored
/// row of row0; `out` rows are layout.cols floats apart.
void decode_rows(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, const std::byte* codes,
                 float* out);
/// Bits of those values rounded to bf16 as kernel::cast does it; `scratch` is resized as needed.
void decode_rows(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, const std::byte* codes,
                 uint16_t* out, std::vector<float>& scratch);

/// Bytes of a parameter as the layout wants them, from bytes that a file stores with another dtype or shape: float
/// types are converted (BF16, F16 and F64 to F32, ...), one-byte types are taken as they are, shapes only need the same
/// number of elements, and a single element is repeated. Throws Error "parameter-mismatch" where that is impossible.
std::vector<std::byte> canonical_parameter(const StoredTensor& wanted, DType dtype, const Shape& shape,
                                           std::vector<std::byte> bytes);

/// Looks for parameter values that no sound file holds: inf or NaN in any of them, then what Format::verify knows.
/// Appends one sentence each.
void check_parameters(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems);

// --- a whole weight in memory -------------------------------------------------------------------------------------

/// A layer's bytes; parameters.tensors[0] holds the codes.
struct Quantized {
  Layout layout;
  Parameters parameters;
};

/// All passes of observe and finish over the weight. `whole` covers all rows and columns. The result does not depend on
/// `threads` (0 = all cores). `non_finite`, if given, tells whether the weight holds an inf or NaN.
Parameters choose_parameters(const Layout& layout, const Tile& whole, const ChooseOptions& choose, int threads,
                             bool* non_finite = nullptr);

/// Codes of the whole weight with given parameters.
std::vector<std::byte> encode(const Layout& layout, const Parameters& parameters, const Tile& whole,
                              const Rounding& rounding, int threads);

/// choose_parameters, then encode.
Quantized quantize(const Layout& layout, const Tile& whole, const ChooseOptions& choose, const Rounding& rounding,
                   int threads);

/// Values of the weight, [total_rows, cols].
std::vector<float> dequantize(const Layout& layout, const Parameters& parameters, int threads);

}  // namespace mezzotint::formats
