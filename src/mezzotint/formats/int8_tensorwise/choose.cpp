#include "mezzotint/formats/int8_tensorwise/choose.h"

#include <algorithm>

#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/int8_tensorwise/layout.h"
#include "mezzotint/kernel/reduce.h"
#include "mezzotint/kernel/search.h"

namespace mezzotint::formats::int8_tensorwise {
namespace {

constexpr float kFloor = 1e-30f;

/// Of one scale per weight: small weights are too few values to sample, and no time either.
kernel::ScaleSearch search_of(const Layout& layout, const ChooseOptions& choose) {
  const bool fast = choose.effort == 1 && layout.rows * layout.cols >= int64_t{1} << 20;
  return fast ? kernel::ScaleSearch::fast : kernel::ScaleSearch::full;
}

/// Importance of the columns that are encoded, or none: rotated ones share what their group has.
struct Weights {
  std::vector<float> rotated;
  const float* data;
  Weights(const Layout& layout, const ChooseOptions& choose) : data(column_weight(layout, choose)) {
    if (data == nullptr || !layout.transformed) return;
    rotated = convrot::column_weights(layout, choose);
    data = rotated.data();
  }
};

/// One scale per weight: what is kept of every row, one array after another. Pass 0 fills the first, and so on.
struct RowStats {
  float* amax;
  float* errors;   ///< kernel::kScaleStats per row
  float* moments;  ///< kernel::kScaleMoments per row

  RowStats(const Layout& layout, float* stats)
      : amax(stats), errors(amax + layout.total_rows()), moments(errors + layout.total_rows() * kernel::kScaleStats) {}
  static size_t size(const Layout& layout, bool search) {
    return static_cast<size_t>(layout.total_rows() * (search ? 1 + kernel::kScaleStats + kernel::kScaleMoments : 1));
  }
};

/// Sums of kCount statistics over an expert's rows, in the rows' order.
template <int kCount>
struct Sums {
  double of[kCount] = {};
  Sums(const Layout& layout, int64_t expert, const float* rows) {
    for (int64_t r = expert * layout.rows; r < (expert + 1) * layout.rows; ++r)
      for (int i = 0; i < kCount; ++i) of[i] += static_cast<double>(rows[r * kCount + i]);
  }
};

bool observe_rows(const Layout& layout, const ChooseOptions& choose, const Tile& tile, Parameters& parameters) {
  float* scale = floats(parameters, 1) + tile.row0;
  const bool non_finite = kernel::amax_rows(source(tile), scale);
  for (int64_t r = 0; r < tile.rows; ++r) scale[r] = int8_codes::scale_of(scale[r], kFloor);
  if (choose.effort > 1)
    kernel::search_int8_blocks(source(tile), 1, layout.cols, Weights(layout, choose).data, kernel::ScaleSearch::full,
                               kFloor, scale, 1);
  return non_finite;
}

float absmax_scale(const Layout& layout, int64_t expert, const RowStats& rows) {
  const float* first = rows.amax + expert * layout.rows;
  return int8_codes::scale_of(*std::max_element(first, first + layout.rows), kFloor);
}

/// The scale after pass `pass`.
float chosen(const Layout& layout, const ChooseOptions& choose, int pass, int64_t expert, const RowStats& rows) {
  const float absmax = absmax_scale(layout, expert, rows);
  if (pass == 0 || absmax <= kFloor) return absmax;
  const Sums<kernel::kScaleStats> errors(layout, expert, rows.errors);
  const float factor = kernel::best_scale_factor(errors.of, search_of(layout, choose));
  const float picked = std::max(absmax * factor, kFloor);
  if (pass == 1) return picked;
  // Moments are in units of the picked scale. The fast search only estimates errors.
  const Sums<kernel::kScaleMoments> moments(layout, expert, rows.moments);
  const double error = moments.of[0] * static_cast<double>(factor) * static_cast<double>(factor);
  if (error > errors.of[0]) return absmax;
  return std::max(picked * kernel::least_squares_factor(moments.of), kFloor);
}

}  // namespace

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions& choose) {
  if (by_row(layout)) return {.passes = 1, .stats = 0, .fused = true};
  const bool search = choose.effort > 0;
  return {.passes = search ? 3 : 1, .stats = RowStats::size(layout, search), .fused = false};
}

bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
             Parameters& parameters) {
  if (by_row(layout)) return observe_rows(layout, choose, tile, parameters);
  const RowStats rows(layout, stats);
  float* amax = rows.amax + tile.row0;
  if (pass == 0) return kernel::amax_rows(source(tile), amax);
  const float scale = floats(parameters, 1)[tile.row0 / layout.rows];
  if (pass == 1)
    kernel::int8_scale_stats(source(tile), tile.row0, scale, amax, column_weight(layout, choose),
                             search_of(layout, choose), rows.errors + tile.row0 * kernel::kScaleStats);
  else
    kernel::int8_scale_moments(source(tile), tile.row0, scale, amax, column_weight(layout, choose),
                               search_of(layout, choose), rows.moments + tile.row0 * kernel::kScaleMoments);
  return false;
}

void finish(const Layout& layout, const ChooseOptions& choose, int pass, float* stats, Parameters& parameters) {
  const RowStats rows(layout, stats);
  for (int64_t expert = 0; expert < layout.experts; ++expert)
    floats(parameters, 1)[expert] = chosen(layout, choose, pass, expert, rows);
}

}  // namespace mezzotint::formats::int8_tensorwise
