#include "mezzotint/convert/tiles.h"

#include <algorithm>
#include <numeric>

#include "mezzotint/base/round_up.h"
#include "mezzotint/convert/lora_aware/use.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/optimizers/basis_factor.h"
#include "mezzotint/formats/driver.h"

namespace mezzotint::convert {

bool is_decoded_source(DType dtype) {
  return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2;
}

bool is_plain_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

bool is_float_source(DType dtype) {
  return is_plain_float(dtype) || is_decoded_source(dtype);
}

OtherTensor source_of(const checkpoint::Model& model, const PlanRow& row) {
  return row.original.value_or(OtherTensor{&model, row.source});
}

TileShape tile_shape(const checkpoint::Model& model, const PlanRow& row, uint64_t tile_bytes) {
  TileShape shape;
  const OtherTensor from = source_of(model, row);
  const auto& info = from.model->source().tensors()[from.tensor];
  if (row.action == Action::drop) return shape;
  if (!row.layout || row.action == Action::keep_codes) {
    shape.source_bytes = std::min(tile_bytes, info.bytes);
    return shape;
  }
  const formats::Layout& layout = *row.layout;
  const auto cols = static_cast<uint64_t>(layout.cols);
  const bool quantized = row.action == Action::reencode;
  const bool decodes = quantized || is_decoded_source(info.dtype) || row.smoothing || row.merge != nullptr ||
                       row.scale_adapters != nullptr;
  const DType source = decodes ? DType::f32 : info.dtype;
  const formats::Layout* stored = quantized ? &model.layers()[row.layer].layout : nullptr;
  const bool whole = stored != nullptr && stored->decodes_whole;
  shape.rows = formats::rows_per_tile(layout, source, static_cast<int64_t>(tile_bytes));
  if (whole) shape.rows = (layout.rows + layout.row_granule - 1) / layout.row_granule * layout.row_granule;
  // What adapters change together is read together.
  int64_t merged = row.merge != nullptr ? merge_granule(*row.merge, layout) : 1;
  if (row.scale_adapters != nullptr)
    merged = std::min(std::lcm(merged, merge_granule(*row.scale_adapters, layout)), layout.total_rows());
  shape.rows = std::min(round_up_to(shape.rows, merged), round_up_to(layout.rows, layout.row_granule));
  const auto rows = static_cast<uint64_t>(std::min(std::max(shape.rows, merged), layout.total_rows()));
  const uint64_t values = rows * cols * sizeof(float);
  if (quantized)
    shape.source_bytes = static_cast<uint64_t>(stored->code_rows(static_cast<int64_t>(rows)) * stored->row_bytes);
  else
    shape.source_bytes = rows * cols * facts(info.dtype).bits / 8;
  shape.value_bytes = (decodes ? values : 0) + (layout.transformed ? values : 0);
  if (whole) shape.value_bytes += shape.source_bytes * sizeof(float);  // decode's own, a float for every code
  if (row.merge != nullptr) {                                          // what adapters copy
    shape.value_bytes += static_cast<uint64_t>(row.merge->granule * row.merge->cols()) * sizeof(float);
    if (row.merge->after != row.merge->before) shape.value_bytes += 2 * values;
  }
  if (row.scale_adapters != nullptr)  // what they copy, and what scales are chosen from
    shape.value_bytes +=
        static_cast<uint64_t>(row.scale_adapters->granule * row.scale_adapters->cols()) * sizeof(float) + 2 * values;
  shape.code_bytes = rows * static_cast<uint64_t>(layout.row_bytes);
  return shape;
}

uint64_t state_bytes(const checkpoint::Model& model, const PlanRow& row) {
  const auto parameter_bytes = [](const formats::Layout& layout) {
    uint64_t bytes = 0;
    for (size_t i = 1; i < layout.tensors.size(); ++i) bytes += formats::tensor_bytes(layout.tensors[i]);
    return bytes;
  };
  uint64_t bytes = 0;
  if (row.layout) {
    bytes += parameter_bytes(*row.layout);
    const auto choose_plan = row.layout->format->choose_plan;
    if (choose_plan != nullptr) bytes += choose_plan(*row.layout, {.effort = row.method.effort}).stats * sizeof(float);
  }
  if (row.smoothing) bytes += 4 * static_cast<uint64_t>(row.shape.back()) * sizeof(float);
  for (const MergedTensor* adapters : {row.merge, row.scale_adapters, row.input_adapters})
    if (adapters != nullptr) bytes += 2 * adapters->bytes;  // factors, and what is computed from them
  if (row.scale_adapters != nullptr && row.scale_adapters->patches.size() > 1)
    bytes += 2 * row.scale_adapters->bytes;                   // each of them alone
  if (row.merge != nullptr || row.input_adapters != nullptr)  // a basis of the space that they read
    bytes += 2 * BasisFactor::bytes(row.layout ? row.layout->cols : row.merge->cols(), basis_rank(row));
  if (row.action == Action::reencode) {
    const checkpoint::Layer& layer = model.layers()[row.layer];
    bytes += parameter_bytes(layer.layout);
    if (layer.smoothed) bytes += static_cast<uint64_t>(layer.layout.cols) * sizeof(float);
  }
  return bytes;
}

uint64_t tile_bytes_for(uint64_t max_memory, int threads) {
  // A tile's own buffers are at most six times its source bytes (fp8 source: 1 + 4 decoded + 1 stored).
  const uint64_t share = max_memory / (static_cast<uint64_t>(std::max(threads, 1)) * 6);
  return std::clamp<uint64_t>(share, 4096, kTileBytes);
}

}  // namespace mezzotint::convert
