#include "mezzotint/nn/input_statistics.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "mezzotint/convert/calibration/histogram.h"

namespace mezzotint::nn {
namespace {

constexpr int64_t kColumns = 128;  // that one task sums up, row after row: the order does not depend on threads

bool is_finite_row(const float* x, int64_t cols) {
  float sum = 0;
  for (int64_t j = 0; j < cols; ++j) sum += x[j] * x[j] * 0.0f;  // 0, or NaN where a square is not finite
  return sum == 0;
}

}  // namespace

InputStatistics::InputStatistics(int64_t cols, bool gram)
    : cols_(cols),
      amax_(static_cast<size_t>(cols)),
      sums_(static_cast<size_t>(cols)),
      squares_(static_cast<size_t>(cols)),
      histogram_(convert::histogram::kBins) {
  if (gram) gram_ = at::zeros({cols, cols}, at::TensorOptions(at::kFloat));
}

void InputStatistics::add(const at::Tensor& x) {
  at::Tensor rows = x.detach().reshape({-1, cols_}).to(at::kCPU, at::kFloat).contiguous();
  std::vector<int64_t> good;
  for (int64_t r = 0; r < rows.size(0); ++r)
    if (is_finite_row(rows.const_data_ptr<float>() + r * cols_, cols_)) good.push_back(r);
  skipped_ += static_cast<uint64_t>(rows.size(0)) - good.size();
  if (good.empty()) return;
  if (static_cast<int64_t>(good.size()) < rows.size(0))
    rows = rows.index_select(
        0, at::from_blob(good.data(), {static_cast<int64_t>(good.size())}, at::TensorOptions(at::kLong)));
  tokens_ += good.size();
  const auto* values = rows.const_data_ptr<float>();
  const int64_t count = rows.size(0);
  std::mutex mutex;
  at::parallel_for(0, (cols_ + kColumns - 1) / kColumns, 1, [&](int64_t first, int64_t last) {
    std::vector<int64_t> counts(histogram_.size());
    for (int64_t block = first; block < last; ++block) {
      const int64_t col0 = block * kColumns, width = std::min(kColumns, cols_ - col0);
      float* amax = amax_.data() + col0;
      double *sums = sums_.data() + col0, *squares = squares_.data() + col0;
      for (int64_t r = 0; r < count; ++r) {
        const float* row = values + r * cols_ + col0;
        for (int64_t j = 0; j < width; ++j) {
          const auto value = static_cast<double>(row[j]);
          amax[j] = std::max(amax[j], std::abs(row[j]));
          sums[j] += value;
          squares[j] += value * value;
        }
        for (int64_t j = 0; j < width; ++j) ++counts[static_cast<size_t>(convert::histogram::bin(row[j]))];
      }
    }
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < counts.size(); ++i) histogram_[i] += counts[i];
  });
  if (gram_.defined()) gram_.addmm_(rows.t(), rows);
}

convert::LayerStatistics InputStatistics::result() const {
  convert::LayerStatistics result;
  result.tokens = tokens_;
  result.channel_amax = amax_;
  result.amax = *std::max_element(amax_.begin(), amax_.end());
  const auto total = static_cast<double>(tokens_);
  for (size_t j = 0; j < sums_.size(); ++j) {
    result.channel_mean.push_back(static_cast<float>(sums_[j] / total));
    result.second_moment.push_back(static_cast<float>(squares_[j] / total));
  }
  result.histogram = histogram_;
  result.has_gram = gram_.defined();
  return result;
}

void InputStatistics::gram_row(int64_t row, float* out) const {
  const float* values = gram_.const_data_ptr<float>() + row * cols_;
  for (int64_t j = 0; j <= row; ++j) out[j] = values[j] / static_cast<float>(tokens_);
}

}  // namespace mezzotint::nn
