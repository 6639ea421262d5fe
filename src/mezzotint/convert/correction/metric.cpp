#include "mezzotint/convert/correction/metric.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <numeric>

#include "mezzotint/convert/optimizers/hessian.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

using dense::Transposed;
using formats::parallel_for;

constexpr int kShiftAttempts = 6;
// Rows of X'X that are read at a time.
constexpr int64_t kPanelRows = 64;

double sum_of_squares(const float* x, int64_t rows, int64_t cols, int64_t stride) {
  double sum = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) sum += double{x[r * stride + c]} * double{x[r * stride + c]};
  return sum;
}

LowerTiles read_moments(const Calibration& calibration, std::string_view layer, int64_t cols) {
  LowerTiles h(cols);
  std::vector<float> panel(static_cast<size_t>(kPanelRows * cols));
  for (int64_t row = 0; row < cols; row += kPanelRows) {  // kPanelRows divides kTileStride
    const int64_t count = std::min(kPanelRows, cols - row), i = row / kTileStride;
    calibration.read_gram_rows(layer, row, count, panel.data());
    for (int64_t j = 0; j <= i; ++j) {
      float* tile = h.open(i, j, nullptr);
      for (int64_t r = 0; r < count; ++r)
        std::copy_n(panel.data() + r * cols + h.first(j), std::min(h.size(j), row + r + 1 - h.first(j)),
                    tile + (row + r - h.first(i)) * kTileStride);
      h.close(i, j, tile);
    }
  }
  return h;
}

bool factor_in_parallel(const LowerTiles& h, LowerTiles& l, int threads) {
  for (int64_t j = 0; j < h.across(); ++j) {
    const auto below = static_cast<size_t>(h.across() - j);
    parallel_for(below, threads, [&](size_t k) {
      TileBuffers buffers;
      update_column(h, l, j + static_cast<int64_t>(k), j, buffers);
    });
    TileBuffers buffers;
    if (!factor_pivot(l, j, buffers)) return false;
    parallel_for(below - 1, threads, [&](size_t k) {
      TileBuffers own;
      solve_column(l, j + 1 + static_cast<int64_t>(k), j, own);
    });
  }
  return true;
}

}  // namespace

Metric::Metric(int64_t cols) : cols_(cols) {}

Metric::Metric(const Calibration& calibration, std::string_view layer, const LayerStatistics& statistics,
               double damping, int threads)
    : cols_(static_cast<int64_t>(statistics.second_moment.size())) {
  const std::vector<float>& moments = statistics.second_moment;
  const double sum = std::accumulate(moments.begin(), moments.end(), 0.0);
  if (sum <= 0) return;  // a layer that only ever saw zeros
  const double mean = sum / static_cast<double>(moments.size());
  if (statistics.has_gram && factorize(calibration, layer, mean, damping, threads)) return;
  damping_ = damping * mean;
  for (const float moment : moments)
    diagonal_.push_back(static_cast<float>(std::sqrt(static_cast<double>(moment) + damping_)));
}

bool Metric::factorize(const Calibration& calibration, std::string_view layer, double mean, double damping,
                       int threads) {
  LowerTiles h = read_moments(calibration, layer, cols_);
  for (int attempt = 0; attempt < kShiftAttempts; ++attempt) {
    const double wanted = damping * std::pow(10.0, attempt) * mean;
    add_to_diagonal(h, std::vector<float>(static_cast<size_t>(cols_), static_cast<float>(wanted - damping_)));
    damping_ = wanted;
    LowerTiles l(cols_);
    if (!factor_in_parallel(h, l, threads)) continue;
    for (int64_t j = 0; j < l.across(); ++j) {
      float* tile = l.open(j, j, nullptr);
      for (int64_t r = 0; r < l.size(j); ++r)
        std::fill(tile + r * kTileStride + r + 1, tile + r * kTileStride + l.size(j), 0.0f);
      l.close(j, j, tile);
    }
    factor_ = std::move(l);
    return true;
  }
  return false;
}

uint64_t Metric::bytes(int64_t cols) {
  return 2 * LowerTiles::bytes(cols);
}

std::vector<float> Metric::multiply(std::span<const float> x, int64_t width, int threads) const {
  assert(x.size() == static_cast<size_t>(cols_ * width));
  std::vector<float> out(x.begin(), x.end());
  if (!diagonal_.empty())
    for (int64_t c = 0; c < cols_; ++c)
      for (int64_t k = 0; k < width; ++k) out[static_cast<size_t>(c * width + k)] *= diagonal_[static_cast<size_t>(c)];
  if (!factor_) return out;
  const LowerTiles& l = *factor_;
  parallel_for(static_cast<size_t>(l.across()), threads, [&](size_t index) {
    const auto i = static_cast<int64_t>(index);
    for (int64_t j = 0; j <= i; ++j)
      dense::multiply(Transposed::no, Transposed::no, l.size(i), width, l.size(j), 1.0f, l.read(i, j, nullptr),
                      kTileStride, x.data() + l.first(j) * width, width, j == 0 ? 0.0f : 1.0f,
                      out.data() + l.first(i) * width, width);
  });
  return out;
}

std::vector<float> Metric::multiply_transposed(std::span<const float> x, int64_t width, int threads) const {
  if (!factor_) return multiply(x, width, threads);
  assert(x.size() == static_cast<size_t>(cols_ * width));
  const LowerTiles& l = *factor_;
  std::vector<float> out(x.size());
  parallel_for(static_cast<size_t>(l.across()), threads, [&](size_t index) {
    const auto j = static_cast<int64_t>(index);
    for (int64_t i = j; i < l.across(); ++i)
      dense::multiply(Transposed::yes, Transposed::no, l.size(j), width, l.size(i), 1.0f, l.read(i, j, nullptr),
                      kTileStride, x.data() + l.first(i) * width, width, i == j ? 0.0f : 1.0f,
                      out.data() + l.first(j) * width, width);
  });
  return out;
}

void Metric::divide(int64_t rows, float* x) const {
  if (!diagonal_.empty())
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols_; ++c) x[r * cols_ + c] /= diagonal_[static_cast<size_t>(c)];
  if (!factor_) return;
  const LowerTiles& l = *factor_;
  for (int64_t j = l.across() - 1; j >= 0; --j) {
    float* columns = x + l.first(j);
    for (int64_t i = j + 1; i < l.across(); ++i)
      dense::multiply(Transposed::no, Transposed::no, rows, l.size(j), l.size(i), -1.0f, x + l.first(i), cols_,
                      l.read(i, j, nullptr), kTileStride, 1.0f, columns, cols_);
    dense::divide_right(rows, l.size(j), l.read(j, j, nullptr), kTileStride, columns, cols_);
  }
}

double Metric::energy(const float* e, int64_t rows) const {
  if (!factor_) {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols_; ++c) {
        const double factor = diagonal_.empty() ? 1.0 : double{diagonal_[static_cast<size_t>(c)]};
        const double value = double{e[r * cols_ + c]} * factor;
        sum += value * value;
      }
    return sum;
  }
  const LowerTiles& l = *factor_;
  std::vector<float> product(static_cast<size_t>(rows * kTileStride));
  double sum = 0;
  for (int64_t j = 0; j < l.across(); ++j) {
    for (int64_t i = j; i < l.across(); ++i)
      dense::multiply(Transposed::no, Transposed::no, rows, l.size(j), l.size(i), 1.0f, e + l.first(i), cols_,
                      l.read(i, j, nullptr), kTileStride, i == j ? 0.0f : 1.0f, product.data(), kTileStride);
    sum += sum_of_squares(product.data(), rows, l.size(j), kTileStride);
  }
  return sum;
}

}  // namespace mezzotint::convert
