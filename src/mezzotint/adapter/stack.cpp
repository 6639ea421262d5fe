#include "mezzotint/adapter/stack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "mezzotint/base/error.h"

namespace mezzotint::adapter {
namespace {

[[noreturn]] void refuse_stack(const Target& target, std::string problem, std::string advice = "") {
  throw Error(
      {.name = "adapter-shape", .problem = std::move(problem), .tensor = target.layer, .advice = std::move(advice)});
}

// Rows in the adapter's order: halves change places.
void apply_swapped(const Stack::Item& item, float* weight) {
  const int64_t half = item.rows / 2, cols = item.effect->cols();
  std::rotate(weight, weight + half * cols, weight + item.rows * cols);
  item.effect->apply(0, item.rows, weight, item.strength);
  std::rotate(weight, weight + half * cols, weight + item.rows * cols);
}

}  // namespace

int64_t Stack::Item::granule() const {
  const int64_t g = effect->granule();
  return swap_halves && rows / 2 % g != 0 ? rows : g;
}

Shape Stack::shape_of(const Target& target) const {
  Shape shape = shape_;
  const int64_t rows = matrix_rows(shape), wanted = target.rows == 0 ? rows - target.row0 : target.rows;
  if (target.row0 < 0 || wanted < 1 || target.row0 + wanted > rows)
    refuse_stack(target, fmt::format("rows {} to {} of {} are meant", target.row0, target.row0 + wanted, rows));
  if (target.swap_halves && wanted % 2 != 0) refuse_stack(target, fmt::format("{} rows have no halves", wanted));
  if (!shape.empty()) shape[0] = wanted;
  return shape;
}

void Stack::add(std::unique_ptr<const Effect> effect, double strength, const Target& target) {
  const Shape before = shape_of(target);
  if (effect->shape() != before) {
    if (!items_.empty() || before != shape_ || target.swap_halves)
      refuse_stack(target, "an adapter enlarges a weight that another one changes", "Give it first, and alone.");
    shape_ = effect->shape();
  }
  const int64_t rows = effect->rows();
  items_.push_back({std::move(effect), strength, target.row0, rows, target.swap_halves});
}

bool Stack::additive() const {
  return std::ranges::all_of(items_, [](const Item& item) { return item.effect->additive(); });
}

bool Stack::may_cut(int64_t row) const {
  return std::ranges::all_of(items_, [row](const Item& item) {
    return row <= item.row0 || row >= item.row0 + item.rows || (row - item.row0) % item.granule() == 0;
  });
}

std::vector<RowRun> Stack::cut(int64_t rows) const {
  const int64_t all = matrix_rows(shape_);
  std::vector<RowRun> runs;
  for (int64_t row = 0; row < all;) {
    int64_t end = std::min(row + std::max<int64_t>(rows, 1), all);
    while (end < all && !may_cut(end)) ++end;
    runs.push_back({row, end - row});
    row = end;
  }
  return runs;
}

void Stack::apply(RowRun run, float* weight) const {
  const int64_t cols = matrix_cols(shape_);
  for (const Item& item : items_) {
    const int64_t begin = std::max(run.row0, item.row0), end = std::min(run.row0 + run.rows, item.row0 + item.rows);
    if (begin >= end) continue;
    float* rows = weight + (begin - run.row0) * cols;
    const int64_t first = begin - item.row0, last = end - item.row0, half = item.rows / 2;
    if (!item.swap_halves) {
      item.effect->apply(first, last - first, rows, item.strength);
    } else if (item.granule() == item.rows) {
      assert(first == 0 && last == item.rows);
      apply_swapped(item, rows);
    } else {  // either half is in one piece
      const int64_t middle = std::clamp(half, first, last);
      if (first < middle) item.effect->apply(first + half, middle - first, rows, item.strength);
      if (middle < last)
        item.effect->apply(middle - half, last - middle, rows + (middle - first) * cols, item.strength);
    }
  }
}

std::vector<float> grow(const std::vector<float>& values, const Shape& from, const Shape& to) {
  assert(from.size() == to.size());
  std::vector<float> out(element_count(to).value_or(0));
  for (size_t i = 0; i < values.size(); ++i) {
    size_t rest = i, at = 0, stride = 1;
    for (size_t axis = from.size(); axis-- > 0;) {
      const auto size = static_cast<size_t>(from[axis]);
      at += rest % size * stride;
      rest /= size;
      stride *= static_cast<size_t>(to[axis]);
    }
    out[at] = values[i];
  }
  return out;
}

}  // namespace mezzotint::adapter
