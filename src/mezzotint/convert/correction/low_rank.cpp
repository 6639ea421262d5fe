#include "mezzotint/convert/correction/low_rank.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <span>

#include "mezzotint/base/philox.h"
#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

using dense::Transposed;
using formats::parallel_for;

constexpr int kSvdIterations = 5;
constexpr int64_t kSvdMoreVectors = 10;
// Columns of E' Y that one piece of work adds up.
constexpr int64_t kPieceColumns = 512;

int64_t width_of(int64_t cols, int64_t rank) {
  return std::min(cols, rank + std::max(kSvdMoreVectors, rank));
}

/// One pass over E, group by group, whose bits do not depend on threads: blocks of a group are independent, and what
/// groups add up is added in their order.
class Passes {
 public:
  Passes(const BlockedMatrix& e, int64_t width, int threads) : e_(e), width_(width), threads_(threads) {
    for (const BlockedMatrix::Block& block : e.blocks) block_rows_ = std::max(block_rows_, block.rows);
  }

  /// E v into `out` [rows, width], and E' E v into `back` [cols, width] where that is wanted.
  void multiply(std::span<const float> v, std::vector<float>& out, std::vector<float>* back) {
    out.resize(static_cast<size_t>(e_.rows * width_));
    if (back != nullptr) back->assign(static_cast<size_t>(e_.cols * width_), 0.0f);
    for (size_t first = 0; first < e_.blocks.size(); first += kGroupBlocks) {
      const size_t count = std::min(kGroupBlocks, e_.blocks.size() - first);
      const float* rows[kGroupBlocks];
      parallel_for(count, threads_, [&](size_t k) {
        const BlockedMatrix::Block& block = e_.blocks[first + k];
        rows[k] = e_.read(first + k, buffer(k));
        dense::multiply(Transposed::no, Transposed::no, block.rows, width_, e_.cols, 1.0f, rows[k], e_.cols, v.data(),
                        width_, 0.0f, out.data() + block.row0 * width_, width_);
      });
      if (back == nullptr) continue;
      parallel_for(static_cast<size_t>(divide_up(e_.cols, kPieceColumns)), threads_, [&](size_t piece) {
        const int64_t col = static_cast<int64_t>(piece) * kPieceColumns, cols = std::min(kPieceColumns, e_.cols - col);
        for (size_t k = 0; k < count; ++k) {
          const BlockedMatrix::Block& block = e_.blocks[first + k];
          dense::multiply(Transposed::yes, Transposed::no, cols, width_, block.rows, 1.0f, rows[k] + col, e_.cols,
                          out.data() + block.row0 * width_, width_, 1.0f, back->data() + col * width_, width_);
        }
      });
    }
  }

 private:
  float* buffer(size_t k) {
    buffers_[k].resize(static_cast<size_t>(block_rows_ * e_.cols));
    return buffers_[k].data();
  }

  const BlockedMatrix& e_;
  int64_t width_;
  int threads_;
  int64_t block_rows_ = 0;
  std::vector<float> buffers_[kGroupBlocks];
};

/// Gives column k of up and row k of down the same norm.
void balance(LowRank& factors, int64_t rows, int64_t cols) {
  const int64_t rank = factors.rank;
  for (int64_t k = 0; k < rank; ++k) {
    float* up = factors.up.data() + k;
    float* down = factors.down.data() + k * cols;
    double up_square = 0, down_square = 0;
    for (int64_t r = 0; r < rows; ++r) up_square += double{up[r * rank]} * double{up[r * rank]};
    for (int64_t c = 0; c < cols; ++c) down_square += double{down[c]} * double{down[c]};
    const bool any = up_square > 0 && down_square > 0;
    const double factor = any ? std::pow(down_square / up_square, 0.25) : 0.0;
    for (int64_t r = 0; r < rows; ++r) up[r * rank] = static_cast<float>(double{up[r * rank]} * factor);
    for (int64_t c = 0; c < cols; ++c) down[c] = any ? static_cast<float>(double{down[c]} / factor) : 0.0f;
  }
}

}  // namespace

uint64_t nearest_of_rank_bytes(int64_t rows, int64_t cols, int64_t rank) {
  return static_cast<uint64_t>((rows + 3 * cols) * width_of(cols, rank) + (rows + cols) * rank) * sizeof(float);
}

LowRank nearest_of_rank(const BlockedMatrix& e, const Metric& metric, int64_t rank, int threads) {
  assert(rank >= 0 && rank <= std::min(e.rows, e.cols) && metric.cols() == e.cols);
  const int64_t width = width_of(e.cols, rank);
  std::vector<float> v(static_cast<size_t>(e.cols * width)), image, back;
  for (size_t i = 0; i < v.size(); ++i)  // uniform in [-1, 1)
    v[i] = static_cast<float>(random_bits(0, i)) * 0x1p-31f - 1.0f;
  Passes passes(e, width, threads);
  for (int iteration = 0; iteration < kSvdIterations; ++iteration) {
    passes.multiply(metric.multiply(v, width, threads), image, &back);
    v = metric.multiply_transposed(back, width, threads);
    dense::orthonormalize(e.cols, width, v.data(), width);
  }
  back = {};
  // The singular vectors of E C within the basis, by the eigenvectors of (E C V)'(E C V), the leading ones last.
  passes.multiply(metric.multiply(v, width, threads), image, nullptr);
  std::vector<float> small(static_cast<size_t>(width * width), 0.0f), values(static_cast<size_t>(width));
  dense::multiply(Transposed::yes, Transposed::no, width, width, e.rows, 1.0f, image.data(), width, image.data(), width,
                  0.0f, small.data(), width);
  LowRank result{.rank = rank,
                 .up = std::vector<float>(static_cast<size_t>(e.rows * rank)),
                 .down = std::vector<float>(static_cast<size_t>(rank * e.cols))};
  if (!dense::eigenvectors(width, small.data(), width, values.data())) return result;  // zeros
  const float* leading = small.data() + (width - rank) * width;
  dense::multiply(Transposed::no, Transposed::yes, e.rows, rank, width, 1.0f, image.data(), width, leading, width, 0.0f,
                  result.up.data(), rank);
  dense::multiply(Transposed::no, Transposed::yes, rank, e.cols, width, 1.0f, leading, width, v.data(), width, 0.0f,
                  result.down.data(), e.cols);
  metric.divide(rank, result.down.data());
  balance(result, e.rows, e.cols);
  return result;
}

}  // namespace mezzotint::convert
