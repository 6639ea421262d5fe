#pragma once
#include <cstdint>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/plan.h"

/// How a row's work is cut into tiles, and what a tile holds in memory: asked by the plan (peak memory) and by the
/// pipeline, so that both say the same.
namespace mezzotint::convert {

/// What has values that a computer calculates with: fp32, bf16, fp16.
bool is_plain_float(DType dtype);

/// Whether a plain tensor (no layer, no scale) can be encoded, and whether its tiles are decoded to float32 for it
/// first: fp8 casts of whole models are around, whose codes are the values.
bool is_float_source(DType dtype);
bool is_decoded_source(DType dtype);

/// Source bytes that one tile aims at: small enough to stay in a core's L2 cache between reading, choosing and
/// encoding.
inline constexpr uint64_t kTileBytes = 1 << 20;

struct TileShape {
  int64_t rows = 0;           ///< of the weight; 0 for copies, which are cut by bytes
  uint64_t source_bytes = 0;  ///< read buffer
  uint64_t value_bytes = 0;   ///< float32 values: decoded source, or rows to be transformed
  uint64_t code_bytes = 0;    ///< write buffer
  uint64_t total() const { return source_bytes + value_bytes + code_bytes; }
};

/// Where the values of a row that is not reencoded are read from.
OtherTensor source_of(const checkpoint::Model& model, const PlanRow& row);

TileShape tile_shape(const checkpoint::Model& model, const PlanRow& row, uint64_t tile_bytes);

/// Bytes that one row holds while it is worked on besides its tiles: parameters and statistics.
uint64_t state_bytes(const checkpoint::Model& model, const PlanRow& row);

/// Tile size for a memory bound: kTileBytes, or less where `threads` tiles of it would not fit.
uint64_t tile_bytes_for(uint64_t max_memory, int threads);

}  // namespace mezzotint::convert
