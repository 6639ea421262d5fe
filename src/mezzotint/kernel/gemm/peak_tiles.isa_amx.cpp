#include "mezzotint/kernel/gemm/amx_tiles.h"
#include "mezzotint/kernel/gemm/peak.h"
#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {
namespace {

/// Four tiles of sums, as in the products. Returns the number of tile products.
template <class Product>
int64_t tile_loop(int64_t rounds, Product product) {
  HardwareTiles tiles;
  tiles.configure();
  tiles.zero<0>();
  tiles.zero<1>();
  tiles.zero<2>();
  tiles.zero<3>();
  tiles.zero<4>();
  tiles.zero<5>();
  tiles.zero<6>();
  tiles.zero<7>();
  for (int64_t round = 0; round < rounds; ++round) product(tiles);
  tiles.release();
  return 4 * rounds;
}

}  // namespace

template <>
int64_t peak_int8<kIsa>(int64_t rounds) {
  return 2 * 16 * 16 * 64 * tile_loop(rounds, [](HardwareTiles& tiles) {
           tiles.dot_int8<0, 4, 6>();
           tiles.dot_int8<1, 4, 7>();
           tiles.dot_int8<2, 5, 6>();
           tiles.dot_int8<3, 5, 7>();
         });
}

template <>
int64_t peak_bf16<kIsa>(int64_t rounds) {
  return 2 * 16 * 16 * 32 * tile_loop(rounds, [](HardwareTiles& tiles) {
           tiles.dot_bf16<0, 4, 6>();
           tiles.dot_bf16<1, 4, 7>();
           tiles.dot_bf16<2, 5, 6>();
           tiles.dot_bf16<3, 5, 7>();
         });
}

}  // namespace mezzotint::kernel
