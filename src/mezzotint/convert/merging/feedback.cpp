#include "mezzotint/convert/merging/feedback.h"

#include <algorithm>
#include <cmath>

#include "mezzotint/checkpoint/weight_values.h"

namespace mezzotint::convert {
namespace {

constexpr double kWeight = 30;
// What is left of a vector, of its length, below which it adds no direction.
constexpr double kDependent = 1e-4;

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// Appends the row to the basis, less what lies in it already.
void extend_basis(std::vector<float>& basis, std::vector<float> row) {
  const auto n = static_cast<int64_t>(row.size());
  const double length = std::sqrt(dot(row.data(), row.data(), n));
  if (!(length > 0) || !std::isfinite(length)) return;
  for (float& x : row) x = static_cast<float>(static_cast<double>(x) / length);
  for (int round = 0; round < 2; ++round)  // once is not enough where little is left
    for (size_t at = 0; at < basis.size(); at += row.size()) {
      const auto share = static_cast<float>(dot(basis.data() + at, row.data(), n));
      for (int64_t i = 0; i < n; ++i) row[static_cast<size_t>(i)] -= share * basis[at + static_cast<size_t>(i)];
    }
  const double left = std::sqrt(dot(row.data(), row.data(), n));
  if (left < kDependent) return;
  for (const float x : row) basis.push_back(static_cast<float>(static_cast<double>(x) / left));
}

}  // namespace

std::optional<ObjectiveOptions> merge_objective(const MergedTensor& tensor, const formats::Layout& layout) {
  if (tensor.rank == 0 || layout.experts != 1 || tensor.cols() != layout.cols) return std::nullopt;
  return basis_objective();
}

ObjectiveOptions basis_objective() {
  ObjectiveOptions options;
  options.moments = Moments::basis;
  options.damping = 1 / kWeight;
  return options;
}

std::vector<float> merge_input_basis(const adapter::Stack& stack, const formats::Layout& layout,
                                     const std::vector<float>& input_factors, std::vector<float> basis) {
  const auto cols = static_cast<size_t>(layout.cols);
  for (const adapter::Stack::Item& item : stack.items()) {
    const adapter::LowRank* factors = item.effect->low_rank();
    if (factors == nullptr || factors->down.cols() != layout.cols || item.strength == 0) continue;
    for (int64_t r = 0; r < factors->rank(); ++r) {
      std::vector<float> row(factors->down.row(r), factors->down.row(r) + cols);
      checkpoint::scale_columns(input_factors, 1, row.data());
      if (layout.transformed) layout.format->transform(layout, row.data(), 1, false);
      if (basis.size() < cols * cols) extend_basis(basis, std::move(row));
    }
  }
  return basis;
}

}  // namespace mezzotint::convert
