#include "mezzotint/formats/driver.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::formats {
namespace {

// Small enough that a tile stays in the second-level cache between its passes, large enough to hide starting a task.
constexpr int64_t kTileBytes = 256 << 10;

int64_t element_bytes(DType dtype) {
  return facts(dtype).bits / 8;
}

Tile rows_of(const Tile& whole, const RowRange& range) {
  Tile tile = whole;
  tile.row0 = whole.row0 + range.row0;
  tile.rows = range.rows;
  tile.data = static_cast<const std::byte*>(whole.data) + range.row0 * whole.row_stride * element_bytes(whole.dtype);
  return tile;
}

}  // namespace

std::vector<RowRange> row_tiles(const Layout& layout, int64_t rows) {
  const int64_t granule = layout.row_granule;
  const int64_t step = std::max(granule, rows / granule * granule);
  std::vector<RowRange> tiles;
  for (int64_t expert = 0; expert < layout.experts; ++expert)
    for (int64_t row = 0; row < layout.rows; row += step)
      tiles.push_back({expert * layout.rows + row, std::min(step, layout.rows - row)});
  return tiles;
}

int64_t rows_per_tile(const Layout& layout, DType source, int64_t bytes) {
  const int64_t granule = layout.row_granule;
  const int64_t granule_bytes = std::max<int64_t>(1, granule * layout.cols * element_bytes(source));
  const int64_t most = (layout.rows + granule - 1) / granule;
  return granule * std::clamp<int64_t>(bytes / granule_bytes, 1, std::max<int64_t>(1, most));
}

size_t tensor_bytes(const StoredTensor& tensor) {
  const auto bytes = byte_count(tensor.dtype, tensor.shape);
  assert(bytes);
  return static_cast<size_t>(*bytes);
}

size_t codes_bytes(const Layout& layout) {
  return static_cast<size_t>(layout.experts * layout.stored_rows * layout.row_bytes);
}

Parameters new_parameters(const Layout& layout) {
  Parameters parameters;
  parameters.tensors.resize(layout.tensors.size());
  for (size_t i = 1; i < layout.tensors.size(); ++i) parameters.tensors[i].resize(tensor_bytes(layout.tensors[i]));
  if (layout.format->constants) layout.format->constants(layout, parameters);
  return parameters;
}

Tile float_tile(const Tile& tile, std::vector<float>& scratch) {
  scratch.resize(static_cast<size_t>(tile.rows * tile.cols));
  kernel::cast({tile.data, tile.dtype, tile.rows, tile.cols, tile.row_stride}, DType::f32, scratch.data(), tile.cols);
  Tile widened = tile;
  widened.data = scratch.data();
  widened.dtype = DType::f32;
  widened.row_stride = tile.cols;
  return widened;
}

Tile prepare_tile(const Layout& layout, const Tile& tile, std::vector<float>& scratch) {
  if (!layout.transformed) return tile;
  assert(tile.col0 == 0 && tile.cols == layout.cols);
  const Tile widened = float_tile(tile, scratch);
  layout.format->transform(layout, scratch.data(), widened.rows, false);
  return widened;
}

void encode_tile(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
                 std::byte* codes, std::vector<float>& scratch) {
  layout.format->encode(layout, parameters, prepare_tile(layout, tile, scratch), rounding, codes);
}

void decode_rows(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, const std::byte* codes,
                 float* out) {
  layout.format->decode(layout, parameters, row0, rows, 0, layout.cols, codes, out, layout.cols);
  if (layout.transformed) layout.format->transform(layout, out, rows, true);
}

void decode_rows(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, const std::byte* codes,
                 uint16_t* out, std::vector<float>& scratch) {
  if (layout.format->decode_bf16 && !layout.transformed)
    return layout.format->decode_bf16(layout, parameters, row0, rows, 0, layout.cols, codes, out, layout.cols);
  scratch.resize(static_cast<size_t>(rows * layout.cols));
  decode_rows(layout, parameters, row0, rows, codes, scratch.data());
  kernel::cast({scratch.data(), DType::f32, rows, layout.cols, layout.cols}, DType::bf16, out, layout.cols);
}

Parameters choose_parameters(const Layout& layout, const Tile& whole, const ChooseOptions& choose, int threads,
                             bool* non_finite) {
  const Format& format = *layout.format;
  assert(whole.row0 == 0 && whole.rows == layout.total_rows());
  Parameters parameters = new_parameters(layout);
  if (non_finite) *non_finite = false;
  if (format.choose_plan == nullptr) return parameters;
  const ChoosePlan plan = format.choose_plan(layout, choose);
  std::vector<float> stats(plan.stats, 0.0f);
  const auto tiles = row_tiles(layout, rows_per_tile(layout, whole.dtype, kTileBytes));
  std::vector<char> seen(tiles.size(), 0);
  for (int pass = 0; pass < plan.passes; ++pass) {
    parallel_for(tiles.size(), threads, [&](size_t i) {
      std::vector<float> scratch;
      const Tile tile = prepare_tile(layout, rows_of(whole, tiles[i]), scratch);
      if (format.observe(layout, choose, pass, tile, stats.data(), parameters)) seen[i] = 1;
    });
    const bool last = pass + 1 == plan.passes;
    if (format.finish && !(last && plan.fused)) format.finish(layout, choose, pass, stats.data(), parameters);
  }
  if (non_finite) *non_finite = std::find(seen.begin(), seen.end(), 1) != seen.end();
  return parameters;
}

std::vector<std::byte> encode(const Layout& layout, const Parameters& parameters, const Tile& whole,
                              const Rounding& rounding, int threads) {
  assert(whole.row0 == 0 && whole.rows == layout.total_rows());
  std::vector<std::byte> codes(codes_bytes(layout));
  const auto tiles = row_tiles(layout, rows_per_tile(layout, whole.dtype, kTileBytes));
  parallel_for(tiles.size(), threads, [&](size_t i) {
    std::vector<float> scratch;
    encode_tile(layout, parameters, rows_of(whole, tiles[i]), rounding,
                codes.data() + layout.stored_row(tiles[i].row0) * layout.row_bytes, scratch);
  });
  return codes;
}

Quantized quantize(const Layout& layout, const Tile& whole, const ChooseOptions& choose, const Rounding& rounding,
                   int threads) {
  Quantized result{layout, choose_parameters(layout, whole, choose, threads)};
  result.parameters.tensors[0] = encode(layout, result.parameters, whole, rounding, threads);
  return result;
}

std::vector<float> dequantize(const Layout& layout, const Parameters& parameters, int threads) {
  assert(parameters.tensors.at(0).size() == codes_bytes(layout));
  std::vector<float> values(static_cast<size_t>(layout.total_rows() * layout.cols));
  const auto tiles = row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes));
  parallel_for(tiles.size(), threads, [&](size_t i) {
    const auto [row0, rows] = tiles[i];
    decode_rows(layout, parameters, row0, rows,
                parameters.tensors[0].data() + layout.stored_row(row0) * layout.row_bytes,
                values.data() + row0 * layout.cols);
  });
  return values;
}

}  // namespace mezzotint::formats
