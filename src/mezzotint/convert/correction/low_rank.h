#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "mezzotint/convert/correction/metric.h"

namespace mezzotint::convert {

/// A matrix that is read block by block: blocks of whole rows that follow one another.
struct BlockedMatrix {
  struct Block {
    int64_t row0 = 0, rows = 0;
  };
  int64_t rows = 0, cols = 0;
  std::vector<Block> blocks;
  /// The rows of a block, packed: written to `buffer` [rows, cols], or where they lie already. Called from several
  /// threads, for different blocks.
  std::function<const float*(size_t block, float* buffer)> read;
};

/// up [rows, rank] * down [rank, cols], row-major; a column of up and its row of down have the same norm.
struct LowRank {
  int64_t rank = 0;
  std::vector<float> up, down;
};

/// (Nearly) the `rank` <= min(rows, cols) that comes nearest to the matrix E by the metric: the truncated singular
/// value decomposition of E C = U S V', as U S (V' C^-1). By subspace iteration from a fixed start (Halko, Martinsson &
/// Tropp 2011, algorithm 4.4) with 5 iterations and twice as many vectors as asked for, at least 10 more. Reads the
/// matrix 6 times and holds kGroupBlocks of its blocks and (rows + 3 cols) vectors; the bits do not depend on the
/// threads.
LowRank nearest_of_rank(const BlockedMatrix& e, const Metric& metric, int64_t rank, int threads);

/// What nearest_of_rank holds at most, in bytes, without the metric and the blocks that lie in memory anyway.
uint64_t nearest_of_rank_bytes(int64_t rows, int64_t cols, int64_t rank);

/// Blocks that are in work at a time.
inline constexpr size_t kGroupBlocks = 16;

}  // namespace mezzotint::convert
