#include "mezzotint/convert/optimizers/tiles.h"

#include <cassert>

#include "mezzotint/base/round_up.h"

namespace mezzotint::convert {

LowerTiles::LowerTiles(int64_t n) : n_(n), across_(divide_up(n, kTile)) {
  for (int64_t i = 0; i < across_; ++i)
    for (int64_t j = 0; j <= i; ++j) tiles_.emplace_back(static_cast<size_t>(size(i) * kTile), 0.0f);
}

LowerTiles::LowerTiles(int64_t n, const io::platform::File& scratch, uint64_t offset)
    : n_(n), across_(divide_up(n, kTile)), scratch_(&scratch), offset_(offset) {}

uint64_t LowerTiles::bytes(int64_t n) {
  const auto across = static_cast<uint64_t>(divide_up(n, kTile));
  return across * (across + 1) / 2 * kTileFloats * sizeof(float);
}

const float* LowerTiles::read(int64_t i, int64_t j, float* buffer) const {
  assert(i >= j);
  if (!on_disk()) return tiles_[static_cast<size_t>(index(i, j))].data();
  const size_t bytes = static_cast<size_t>(size(i) * kTile) * sizeof(float);
  const size_t got =
      scratch_->read_at(offset_ + static_cast<uint64_t>(index(i, j) * kTileFloats) * sizeof(float), buffer, bytes);
  std::fill(buffer + got / sizeof(float), buffer + bytes / sizeof(float), 0.0f);  // beyond the end: not written yet
  return buffer;
}

float* LowerTiles::open(int64_t i, int64_t j, float* buffer) {
  if (!on_disk()) return tiles_[static_cast<size_t>(index(i, j))].data();
  read(i, j, buffer);
  return buffer;
}

void LowerTiles::close(int64_t i, int64_t j, const float* tile) {
  if (!on_disk()) return;
  scratch_->write_at(offset_ + static_cast<uint64_t>(index(i, j) * kTileFloats) * sizeof(float), tile,
                     static_cast<size_t>(size(i) * kTile) * sizeof(float));
}

}  // namespace mezzotint::convert
