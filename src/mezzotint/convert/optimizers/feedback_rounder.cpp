#include "mezzotint/convert/optimizers/feedback_rounder.h"

#include <algorithm>
#include <cassert>
#include <optional>

#include "mezzotint/base/round_up.h"
#include "mezzotint/kernel/dense.h"
#include "mezzotint/kernel/feedback.h"
#include "mezzotint/kernel/transpose.h"

namespace mezzotint::convert {
namespace {

using dense::Transposed;
using kernel::FeedbackBlock;
using kernel::kFeedbackColumns;

constexpr int64_t kTransposeColumns = 64;

}  // namespace

/// Positions by rows: errors of feedback in the first half of a column of `error`, of plain rounding in the second.
struct FeedbackRounder::Strip {
  const formats::Layout& layout;
  const formats::Parameters& parameters;
  int64_t row0, rows, stride;  // stride: rows, padded
  std::optional<ScaledGrid> grid;
};

FeedbackRounder::FeedbackRounder(const LowerTiles& h, const LowerTiles& l, int64_t col0,
                                 std::span<const int32_t> column_at)
    : h_(&h), l_(&l), n_(l.order()), col0_(col0), column_at_(column_at) {
  place_columns();
  for (const float pivot : diagonal(l)) {
    pivot_energy_.push_back(pivot * pivot);
    inverse_pivot_.push_back(1.0f / pivot);
  }
  diagonal_ = diagonal(h);
  for (const float value : diagonal_) inverse_diagonal_.push_back(1.0f / value);
}

FeedbackRounder::FeedbackRounder(const BasisFactor& factor, int64_t col0, std::span<const int32_t> column_at)
    : basis_(&factor), n_(factor.n), col0_(col0), column_at_(column_at) {
  place_columns();
  for (const float pivot : factor.pivot) {
    pivot_energy_.push_back(pivot * pivot);
    inverse_pivot_.push_back(1.0f / pivot);
  }
}

void FeedbackRounder::place_columns() {
  assert(static_cast<int64_t>(column_at_.size()) == n_);
  position_.resize(column_at_.size());
  for (size_t p = 0; p < column_at_.size(); ++p)
    position_[static_cast<size_t>(column_at_[p] - col0_)] = static_cast<int32_t>(p);
}

int64_t FeedbackRounder::padded(int64_t rows) {
  return round_up_to(rows, kernel::kFeedbackRows);
}

uint64_t FeedbackRounder::workspace_bytes(const formats::Layout& layout, int64_t rows) {
  const auto stride = static_cast<uint64_t>(padded(rows));
  const auto cols = static_cast<uint64_t>(layout.cols);
  const uint64_t scales = layout.block_cols > 0 ? 2 * cols / static_cast<uint64_t>(layout.block_cols) + 2 : 2;
  const uint64_t columns = 3 * cols + scales + 2 * kTileStride + 2 * kFeedbackColumns;
  return 4 * (columns * stride + 3 * LowerTiles::kTileFloats) +
         static_cast<uint64_t>(rows) * static_cast<uint64_t>(layout.row_bytes);
}

/// One block of positions for round_with_feedback, on either half.
struct FeedbackRounder::BlockTask {
  const float* base;
  int64_t base_stride;
  const float* carried;
  float* change;
  int64_t stride;
  const float* inverse_pivot;
  const float* pivot_energy;
  float* energy;
  bool feedback, energy_of_change;
};

void FeedbackRounder::round_block(const Strip& strip, Workspace& w, int64_t first, int64_t columns,
                                  const BlockTask& task) const {
  FeedbackBlock block{.columns = columns,
                      .rows = strip.stride,
                      .base_stride = task.base_stride,
                      .stride = task.stride,
                      .base = task.base,
                      .carried = task.carried,
                      .coupling = w.coupling.data(),
                      .inverse_pivot = task.inverse_pivot + first,
                      .feedback = task.feedback,
                      .change = task.change,
                      .pivot_energy = task.pivot_energy + first,
                      .energy = task.energy,
                      .energy_of_change = task.energy_of_change};
  if (strip.grid) {
    const float *scale[kFeedbackColumns], *inverse_scale[kFeedbackColumns];
    for (int64_t p = 0; p < columns; ++p) {
      const int32_t column = column_at_[static_cast<size_t>(first + p)];
      scale[p] = strip.grid->scale(column);
      inverse_scale[p] = strip.grid->inverse_scale(column);
    }
    block.scale = scale;
    block.inverse_scale = inverse_scale;
    block.grid = strip.grid->grid();
    return kernel::round_with_feedback(block);
  }
  // A codebook: every column goes through the format's own codec.
  std::vector<float> wanted(static_cast<size_t>(strip.rows)), v(wanted.size()), got(wanted.size());
  for (int64_t p = columns - 1; p >= 0; --p) {
    const int32_t column = column_at_[static_cast<size_t>(first + p)];
    for (int64_t r = 0; r < strip.rows; ++r) {
      float sum = block.carried[p * block.stride + r];
      for (int64_t q = columns - 1; q > p; --q)
        sum += block.change[q * block.stride + r] * block.coupling[p * kFeedbackColumns + q];
      const float base = block.base[p * block.base_stride + r];
      const auto at = static_cast<size_t>(r);
      v[at] = base - sum * block.inverse_pivot[p];
      wanted[at] = block.feedback ? v[at] : base;
    }
    const formats::Tile tile{.data = wanted.data(),
                             .dtype = DType::f32,
                             .row0 = strip.row0,
                             .rows = strip.rows,
                             .col0 = column,
                             .cols = 1,
                             .row_stride = 1};
    strip.layout.format->encode(strip.layout, strip.parameters, tile, Rounding{}, w.codes.data());
    strip.layout.format->decode(strip.layout, strip.parameters, strip.row0, strip.rows, column, 1, w.codes.data(),
                                got.data(), 1);
    for (int64_t r = 0; r < strip.rows; ++r) {
      const auto at = static_cast<size_t>(r);
      const float base = block.base[p * block.base_stride + r];
      const float rest = got[at] - v[at], before = base - v[at];
      block.change[p * block.stride + r] = got[at] - base;
      block.energy[r] += (rest * rest - (block.energy_of_change ? before * before : 0.0f)) * block.pivot_energy[p];
    }
    for (int64_t r = strip.rows; r < strip.stride; ++r) block.change[p * block.stride + r] = 0;
  }
}

// Room for a strip, and its weights by position.
void FeedbackRounder::open(const Strip& strip, const formats::Tile& tile, Workspace& w) const {
  const int64_t n = n_, stride = strip.stride;
  assert(tile.dtype == DType::f32 && tile.cols == strip.layout.cols && col0_ + n <= tile.cols);
  if (!strip.grid) w.codes.assign(static_cast<size_t>(tile.rows * strip.layout.row_bytes), std::byte{0});
  w.base.assign(static_cast<size_t>(n * stride), 0.0f);
  w.error.resize(static_cast<size_t>(2 * n * stride));
  w.carried.resize(static_cast<size_t>(2 * kTileStride * stride));
  w.block.resize(static_cast<size_t>(2 * kFeedbackColumns * stride));
  w.coupling.resize(kFeedbackColumns * kFeedbackColumns);
  w.sums.assign(static_cast<size_t>(2 * stride), 0.0f);
  gather(strip, static_cast<const float*>(tile.data), tile.row_stride, w, w.base.data(), stride);
}

/// These columns of rows of values, by position.
void FeedbackRounder::gather(const Strip& strip, const float* values, int64_t row_stride, Workspace& w, float* to,
                             int64_t to_stride) const {
  for (int64_t c = 0; c < n_; c += kTransposeColumns) {
    const int64_t count = std::min(kTransposeColumns, n_ - c);
    kernel::transpose(values + col0_ + c, strip.rows, count, row_stride, w.block.data(), strip.stride, 4);
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(w.block.data() + i * strip.stride, strip.rows,
                  to + position_[static_cast<size_t>(c + i)] * to_stride);
  }
}

FeedbackSums FeedbackRounder::round(const formats::Layout& layout, const formats::Parameters& parameters,
                                    const formats::Tile& tile, Workspace& w, float* out, int sweeps,
                                    const ScaledGrid* grid) const {
  const int64_t stride = padded(tile.rows);
  Strip strip{layout,    parameters,
              tile.row0, tile.rows,
              stride,    grid != nullptr ? *grid : ScaledGrid::of(layout, parameters, tile.row0, tile.rows, stride)};
  open(strip, tile, w);
  basis_ != nullptr ? feed_back_by_basis(strip, w) : feed_back(strip, w);
  assert(basis_ == nullptr || sweeps == 0);
  for (int sweep = 0; sweep < sweeps; ++sweep) descend(strip, w);
  return settle(strip, w, out);
}

FeedbackSums FeedbackRounder::challenge(const formats::Layout& layout, const formats::Parameters& parameters,
                                        const formats::Tile& tile, const float* start, Workspace& w, float* out,
                                        int sweeps) const {
  const int64_t stride = padded(tile.rows);
  Strip strip{layout,    parameters, tile.row0,
              tile.rows, stride,     ScaledGrid::of(layout, parameters, tile.row0, tile.rows, stride)};
  open(strip, tile, w);
  std::fill(w.error.begin(), w.error.end(), 0.0f);
  const float* values[] = {start, out};
  for (int64_t half = 0; half < 2; ++half) {
    float* error = w.error.data() + half * stride;
    gather(strip, values[half], layout.cols, w, error, 2 * stride);
    for (int64_t p = 0; p < n_; ++p)
      for (int64_t r = 0; r < tile.rows; ++r) error[2 * p * stride + r] -= w.base[static_cast<size_t>(p * stride + r)];
  }
  measure(strip, w);
  for (int sweep = 0; sweep < sweeps; ++sweep) descend(strip, w);
  return settle(strip, w, out);
}

// e H e' of both halves: twice what stands below the diagonal, and the diagonal's tiles.
void FeedbackRounder::measure(const Strip& strip, Workspace& w) const {
  const int64_t wide = 2 * strip.stride;
  std::vector<double> sums(static_cast<size_t>(wide));
  for (int64_t j = 0; j < h_->across(); ++j) {
    std::fill_n(w.carried.begin(), h_->size(j) * wide, 0.0f);
    for (int64_t i = j; i < h_->across(); ++i)
      dense::multiply(Transposed::yes, Transposed::no, h_->size(j), wide, h_->size(i), i == j ? 1.0f : 2.0f,
                      h_->read(i, j, w.tiles[0]), kTileStride, w.error.data() + h_->first(i) * wide, wide, 1.0f,
                      w.carried.data(), wide);
    const float* error = w.error.data() + h_->first(j) * wide;
    for (int64_t p = 0; p < h_->size(j); ++p)
      for (int64_t r = 0; r < wide; ++r)
        sums[static_cast<size_t>(r)] += static_cast<double>(w.carried[static_cast<size_t>(p * wide + r)]) *
                                        static_cast<double>(error[p * wide + r]);
  }
  std::copy(sums.begin(), sums.end(), w.sums.begin());
}

// Of either half the better, row by row.
FeedbackSums FeedbackRounder::settle(const Strip& strip, Workspace& w, float* out) const {
  const int64_t n = n_, rows = strip.rows, stride = strip.stride;
  FeedbackSums sums;
  sums.rows = rows;
  const float* rounded = w.sums.data();
  const float* plain = rounded + stride;
  for (int64_t r = 0; r < rows; ++r) {
    const bool better = rounded[r] < plain[r];
    sums.plain += plain[r];
    sums.rounded += better ? rounded[r] : plain[r];
    if (better) continue;
    ++sums.rows_plain;
    for (int64_t p = 0; p < n; ++p)
      w.error[static_cast<size_t>(2 * p * stride + r)] = w.error[static_cast<size_t>((2 * p + 1) * stride + r)];
  }
  for (int64_t c = 0; c < n; c += kTransposeColumns) {
    const int64_t count = std::min(kTransposeColumns, n - c);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t p = position_[static_cast<size_t>(c + i)];
      const float* base = w.base.data() + p * stride;
      const float* error = w.error.data() + 2 * p * stride;
      float* column = w.block.data() + i * stride;
      for (int64_t r = 0; r < rows; ++r) column[r] = base[r] + error[r];
    }
    kernel::transpose(w.block.data(), count, rows, stride, out + col0_ + c, strip.layout.cols, 4);
  }
  return sums;
}

void FeedbackRounder::feed_back(Strip& strip, Workspace& w) const {
  const int64_t wide = 2 * strip.stride;  // both halves at once in the products
  for (int64_t j = l_->across() - 1; j >= 0; --j) {
    const int64_t size = l_->size(j);
    std::fill_n(w.carried.begin(), size * wide, 0.0f);
    for (int64_t i = l_->across() - 1; i > j; --i) {
      const float* tile = l_->read(i, j, w.tiles[0]);
      dense::multiply(Transposed::yes, Transposed::no, size, wide, l_->size(i), 1.0f, tile, kTileStride,
                      w.error.data() + l_->first(i) * wide, wide, 1.0f, w.carried.data(), wide);
    }
    const float* pivot = l_->read(j, j, w.tiles[0]);
    for (int64_t end = size; end > 0;) {
      const int64_t begin = (end - 1) / kFeedbackColumns * kFeedbackColumns, columns = end - begin;
      float* carried = w.carried.data() + begin * wide;
      float* error = w.error.data() + (l_->first(j) + begin) * wide;
      if (end < size)
        dense::multiply(Transposed::yes, Transposed::no, columns, wide, size - end, 1.0f,
                        pivot + end * kTileStride + begin, kTileStride, error + columns * wide, wide, 1.0f, carried,
                        wide);
      for (int64_t p = 0; p < columns; ++p)
        for (int64_t q = p + 1; q < columns; ++q)
          w.coupling[static_cast<size_t>(p * kFeedbackColumns + q)] = pivot[(begin + q) * kTileStride + begin + p];
      round_halves(strip, w, l_->first(j) + begin, columns, carried);
      end = begin;
    }
  }
}

void FeedbackRounder::round_halves(const Strip& strip, Workspace& w, int64_t first, int64_t columns,
                                   const float* carried) const {
  const int64_t wide = 2 * strip.stride;
  for (const bool feedback : {true, false}) {
    const int64_t half = feedback ? 0 : strip.stride;
    round_block(strip, w, first, columns,
                {.base = w.base.data() + first * strip.stride,
                 .base_stride = strip.stride,
                 .carried = carried + half,
                 .change = w.error.data() + first * wide + half,
                 .stride = wide,
                 .inverse_pivot = inverse_pivot_.data(),
                 .pivot_energy = pivot_energy_.data(),
                 .energy = w.sums.data() + half,
                 .feedback = feedback,
                 .energy_of_change = false});
  }
}

// What later columns need to know of earlier errors is what the basis sees of them: E V, `seen`, [rank, wide].
void FeedbackRounder::feed_back_by_basis(Strip& strip, Workspace& w) const {
  const int64_t wide = 2 * strip.stride, rank = basis_->rank;
  w.seen.assign(static_cast<size_t>(rank * wide), 0.0f);
  for (int64_t end = n_; end > 0;) {
    const int64_t begin = (end - 1) / kFeedbackColumns * kFeedbackColumns, columns = end - begin;
    const float *v = basis_->v.data() + begin * rank, *g = basis_->g.data() + begin * rank;
    std::fill_n(w.carried.begin(), columns * wide, 0.0f);
    std::fill(w.coupling.begin(), w.coupling.end(), 0.0f);
    if (rank > 0) {
      dense::multiply(Transposed::no, Transposed::no, columns, wide, rank, 1.0f, g, rank, w.seen.data(), wide, 0.0f,
                      w.carried.data(), wide);
      dense::multiply(Transposed::no, Transposed::yes, columns, columns, rank, 1.0f, g, rank, v, rank, 0.0f,
                      w.coupling.data(), kFeedbackColumns);
    }
    round_halves(strip, w, begin, columns, w.carried.data());
    if (rank > 0 && begin > 0)
      dense::multiply(Transposed::yes, Transposed::no, rank, wide, columns, 1.0f, v, rank,
                      w.error.data() + begin * wide, wide, 1.0f, w.seen.data(), wide);
    end = begin;
  }
}

void FeedbackRounder::descend(Strip& strip, Workspace& w) const {
  const int64_t wide = 2 * strip.stride, rows = strip.stride;
  float* base = w.block.data();
  float* change = base + kFeedbackColumns * rows;
  for (int64_t j = h_->across() - 1; j >= 0; --j)
    for (int64_t end = h_->size(j); end > 0;) {
      const int64_t begin = (end - 1) / kFeedbackColumns * kFeedbackColumns, columns = end - begin;
      const int64_t first = h_->first(j) + begin;
      float* error = w.error.data() + first * wide;
      for (int64_t i = 0; i < h_->across(); ++i) {
        const bool below = i >= j;
        const float* tile = below ? h_->read(i, j, w.tiles[0]) : h_->read(j, i, w.tiles[0]);
        dense::multiply(below ? Transposed::yes : Transposed::no, Transposed::no, columns, rows, h_->size(i), 1.0f,
                        tile + (below ? begin : begin * kTileStride), kTileStride, w.error.data() + h_->first(i) * wide,
                        wide, i == 0 ? 0.0f : 1.0f, w.carried.data(), rows);
        if (i != j) continue;
        for (int64_t p = 0; p < columns; ++p)
          for (int64_t q = p + 1; q < columns; ++q)
            w.coupling[static_cast<size_t>(p * kFeedbackColumns + q)] = tile[(begin + q) * kTileStride + begin + p];
      }
      for (int64_t p = 0; p < columns; ++p)
        for (int64_t r = 0; r < rows; ++r)
          base[p * rows + r] = w.base[static_cast<size_t>((first + p) * rows + r)] + error[p * wide + r];
      round_block(strip, w, first, columns,
                  {.base = base,
                   .base_stride = rows,
                   .carried = w.carried.data(),
                   .change = change,
                   .stride = rows,
                   .inverse_pivot = inverse_diagonal_.data(),
                   .pivot_energy = diagonal_.data(),
                   .energy = w.sums.data(),
                   .feedback = true,
                   .energy_of_change = true});
      for (int64_t p = 0; p < columns; ++p)
        for (int64_t r = 0; r < rows; ++r) error[p * wide + r] += change[p * rows + r];
      end = begin;
    }
}

}  // namespace mezzotint::convert
