#include <algorithm>

#include "mezzotint/base/round_up.h"
#include "mezzotint/convert/merging/feedback.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/merging/scales.h"
#include "mezzotint/convert/pipeline_state.h"
#include "mezzotint/kernel/cast.h"

// Rows that adapters change: their factors are read when the row's turn comes, and change each tile as it is read.
namespace mezzotint::convert {

void Pipeline::load_adapters(const PlanRow& row, State& state) {
  if (row.merge != nullptr) state.stacks.try_emplace(&row, plan_.merge->load(*row.merge));
}

/// A layer that keeps its format keeps the factors that loaders multiply its inputs by.
void Pipeline::open_merge(const PlanRow& row, State& state) {
  load_adapters(row, state);
  if (!row.keeps_format) return;
  state.input_factors = state.source_factors;
  for (const float factor : state.input_factors) state.weight_factors.push_back(factor == 0 ? 0 : 1 / factor);
  if (row.method.objective && row.method.objective->moments == Moments::basis)
    state.basis = merge_input_basis(state.stacks.at(&row), *row.layout, state.input_factors);
}

formats::Tile Pipeline::merged_rows(const PlanRow& row, const State& state, const formats::RowRange& range,
                                    Scratch& scratch) {
  const formats::Layout& layout = *row.layout;
  const MergedTensor& merge = *row.merge;
  const adapter::Stack& stack = state.stacks.at(&row);
  const int64_t granule = merge_granule(merge, layout), first = range.row0 / granule * granule;
  const int64_t end = std::min(round_up_to(range.row0 + range.rows, granule), layout.total_rows());
  if (merge.after == merge.before) {
    const formats::Tile tile = read_rows(row, state, {first, end - first}, scratch);
    if (tile.data != scratch.values.data()) formats::float_tile(tile, scratch.values);
  } else {
    read_grown(row, scratch);
  }
  merge_rows(merge, stack, layout, first, end - first, scratch.values.data());
  const auto skip = static_cast<ptrdiff_t>((range.row0 - first) * layout.cols);
  if (skip > 0) std::copy_n(scratch.values.begin() + skip, range.rows * layout.cols, scratch.values.begin());
  return {.data = scratch.values.data(),
          .row0 = range.row0,
          .rows = range.rows,
          .cols = layout.cols,
          .row_stride = layout.cols};
}

/// The whole tensor, with the zeros around it that an adapter makes room for.
void Pipeline::read_grown(const PlanRow& row, Scratch& scratch) {
  const OtherTensor from = source_of(model_, row);
  const io::TensorInfo& info = from.model->source().tensors()[from.tensor];
  make_room(scratch.source, info.bytes);
  from.model->source().read(from.tensor, 0, scratch.source.data(), info.bytes);
  std::vector<float> values(element_count(info.shape).value_or(0));
  const auto count = static_cast<int64_t>(values.size());
  kernel::cast({scratch.source.data(), info.dtype, 1, count, count}, DType::f32, values.data(), count);
  scratch.values = adapter::grow(values, row.merge->before, row.merge->after);
}

void Pipeline::follow_scales_of(const PlanRow& row, State& state, const formats::RowRange* rows) const {
  if (!row.keeps_format || row.codes_only || row.original) return;
  if (rows != nullptr)
    follow_scales(*row.layout, state.source_parameters, *rows, state.parameters);
  else
    follow_scales(*row.layout, state.source_parameters, state.parameters);
}

}  // namespace mezzotint::convert
