#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "mezzotint/io/platform.h"

namespace mezzotint::convert {

/// The lower triangle of a square matrix, cut into square tiles of float32 that lie in memory or in a scratch file: the
/// arithmetic on them is the same, so that the memory at hand decides no bit. Tile (i, j), i >= j, is row-major with
/// rows kTile floats apart.
class LowerTiles {
 public:
  static constexpr int64_t kTile = 1024;
  static constexpr int64_t kTileFloats = kTile * kTile;

  /// Zeros, in memory.
  explicit LowerTiles(int64_t n);
  /// Zeros, in `scratch` from `offset` on; the file must outlive this.
  LowerTiles(int64_t n, const io::platform::File& scratch, uint64_t offset);

  /// Bytes of the triangle of an n x n matrix.
  static uint64_t bytes(int64_t n);

  int64_t order() const { return n_; }
  int64_t across() const { return across_; }            ///< tiles in a row
  int64_t first(int64_t i) const { return i * kTile; }  ///< first row of tile row i
  int64_t size(int64_t i) const { return std::min(kTile, n_ - i * kTile); }
  bool on_disk() const { return scratch_ != nullptr; }

  /// The tile, in place or read into `buffer` [kTileFloats]. Tiles may be read and written from several threads, but
  /// not one tile at the same time.
  const float* read(int64_t i, int64_t j, float* buffer) const;
  float* open(int64_t i, int64_t j, float* buffer);
  /// Puts back what `open` gave.
  void close(int64_t i, int64_t j, const float* tile);

 private:
  int64_t n_, across_;
  std::vector<std::vector<float>> tiles_;  // in memory
  const io::platform::File* scratch_ = nullptr;
  uint64_t offset_ = 0;

  static int64_t index(int64_t i, int64_t j) { return i * (i + 1) / 2 + j; }
};

inline constexpr int64_t kTileStride = LowerTiles::kTile;  ///< floats from a row of a tile to the next

}  // namespace mezzotint::convert
