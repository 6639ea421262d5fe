#include <algorithm>
#include <cmath>
#include <set>

#include "mezzotint/base/round_up.h"
#include "mezzotint/convert/lora_aware/extremes.h"
#include "mezzotint/convert/merging/feedback.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/pipeline_state.h"

// Rows that are prepared for adapters without taking them up (lora_aware/use.h).
namespace mezzotint::convert {

void Pipeline::load_scale_adapters(const PlanRow& row, State& state) const {
  if (row.scale_adapters == nullptr) return;
  const MergedTensor& all = *row.scale_adapters;
  state.scale_stacks.push_back(plan_.scale_adapters->load(all));
  std::set<size_t> files;
  for (const MergedPatch& patch : all.patches) files.insert(patch.file);
  if (files.size() < 2) return;
  for (const size_t file : files) {
    MergedTensor alone = all;
    std::erase_if(alone.patches, [&](const MergedPatch& patch) { return patch.file != file; });
    state.scale_stacks.push_back(plan_.scale_adapters->load(alone));
  }
}

Pipeline::ObservedRows Pipeline::observed_rows(const PlanRow& row, const State& state, const formats::RowRange& range,
                                               Scratch& scratch) {
  const formats::Layout& layout = *row.layout;
  if (state.scale_stacks.empty()) {
    const formats::Tile values = load_rows(row, state, range, scratch);
    return {values, values};
  }
  const int64_t run = layout.block_cols > 0 ? layout.block_cols : layout.cols;
  const auto count = static_cast<size_t>(range.rows * layout.cols);
  std::vector<float>& both = scratch.observed;
  int64_t matrices = 0;
  for (const adapter::Stack& stack : state.scale_stacks) {
    const formats::Tile tile = adapted_rows(row, state, stack, range, scratch);
    const auto* values = static_cast<const float*>(tile.data);
    if (matrices == 0)
      both.assign(values, values + count);
    else
      keep_extremes(values, range.rows, layout.cols, run, matrices, both.data());
    ++matrices;
  }
  const formats::Tile values = load_rows(row, state, range, scratch);
  std::vector<float> widened;
  const formats::Tile floats = formats::float_tile(values, widened);
  keep_extremes(widened.data(), range.rows, layout.cols, run, matrices, both.data());
  for (size_t i = 0; i < count; ++i)
    if (!std::isfinite(widened[i])) both[i] = widened[i];  // to be told of
  formats::Tile observed = floats;
  observed.data = both.data();
  return {values, observed};
}

/// The rows with the adapters of a stack, as load_rows() would give them.
formats::Tile Pipeline::adapted_rows(const PlanRow& row, const State& state, const adapter::Stack& stack,
                                     const formats::RowRange& range, Scratch& scratch) {
  const formats::Layout& layout = *row.layout;
  const int64_t granule = merge_granule(*row.scale_adapters, layout), first = range.row0 / granule * granule;
  const int64_t end = std::min(round_up_to(range.row0 + range.rows, granule), layout.total_rows());
  const formats::RowRange whole{first, end - first};
  const formats::Tile before =
      row.merge != nullptr ? merged_rows(row, state, whole, scratch) : read_rows(row, state, whole, scratch);
  if (before.data != scratch.values.data()) formats::float_tile(before, scratch.values);
  merge_rows(*row.scale_adapters, stack, layout, first, end - first, scratch.values.data());
  const auto skip = static_cast<ptrdiff_t>((range.row0 - first) * layout.cols);
  if (skip > 0) std::copy_n(scratch.values.begin() + skip, range.rows * layout.cols, scratch.values.begin());
  const formats::Tile tile{.data = scratch.values.data(),
                           .row0 = range.row0,
                           .rows = range.rows,
                           .cols = layout.cols,
                           .row_stride = layout.cols};
  return formats::prepare_tile(layout, smooth(state, tile, scratch), scratch.transformed);
}

void Pipeline::load_input_basis(const PlanRow& row, State& state) const {
  state.basis = merge_input_basis(plan_.input_adapters->load(*row.input_adapters), *row.layout, state.input_factors,
                                  std::move(state.basis));
}

}  // namespace mezzotint::convert
