#include "mezzotint/convert/plan_output.h"

#include <algorithm>

#include "mezzotint/base/version.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/pipeline.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/convert/tiles.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::convert {
namespace {

// Rates behind the time estimate: a plain disk, neither the best nor the worst. `doctor` measures the one at hand.
constexpr double kReadBytesPerSecond = 1e9;
constexpr double kWriteBytesPerSecond = 5e8;

// What the program holds besides its buffers: code and thread stacks; names, decisions and headers of every tensor.
constexpr uint64_t kFixedBytes = 16 << 20;
constexpr uint64_t kTensorBytes = 4 << 10;

void add_spec(Plan& plan, PlanRow& row, std::string name, DType dtype, Shape shape) {
  row.bytes_out += byte_count(dtype, shape).value_or(0);
  plan.specs.push_back({std::move(name), dtype, std::move(shape)});
}

// Dense algebra rounds as its kernels do, and codes follow; everything else is the same bytes on every machine.
std::string deciding_kernels(const Plan& plan) {
  bool any = false, bf16 = false;
  for (const PlanRow& row : plan.rows) {
    any |= row.method.objective.has_value();
    bf16 |= row.method.objective && row.method.objective->bf16_moments;
  }
  return any ? dense::blas_name() + (bf16 ? ", bf16 products" : "") : "";
}

io::Metadata output_metadata(const Plan& plan, const checkpoint::Model& model,
                             const std::vector<std::pair<std::string, std::string>>& layers) {
  io::Metadata metadata;
  for (const auto& [key, value] : model.source().metadata())
    if (key != checkpoint::kHeaderKey && !is_origin_key(key)) metadata.emplace_back(key, value);
  if (!layers.empty()) metadata.emplace_back(checkpoint::kHeaderKey, checkpoint::header_text(layers));
  metadata.emplace_back(kOriginKey,
                        origin_json({std::string(kVersion), deciding_kernels(plan), recipe_json(plan.options)}));
  return metadata;
}

/// What the pipeline holds at once: a tile for every thread, and the state of the rows in work.
uint64_t buffer_bytes(const Plan& plan, const checkpoint::Model& model) {
  uint64_t tile = 0, state = 0, feedback = 0;
  const uint64_t in_memory = Pipeline::objective_memory(plan.options.max_memory);
  const uint64_t tile_bytes = tile_bytes_for(plan.options.max_memory, plan.threads);
  for (const PlanRow& row : plan.rows) {
    if (row.action == Action::drop) continue;
    tile = std::max(tile, tile_shape(model, row, tile_bytes).total());
    state = std::max(state, state_bytes(model, row));
    feedback = std::max(feedback, Pipeline::feedback_bytes(row, static_cast<size_t>(plan.threads), in_memory));
  }
  const auto threads = static_cast<uint64_t>(plan.threads);
  return threads * tile + Pipeline::window(plan, plan.threads) * state + feedback;
}

}  // namespace

void lay_out_output(Plan& plan, const checkpoint::Model& model,
                    const std::vector<std::pair<std::string, std::string>>& carried) {
  std::vector<std::pair<std::string, std::string>> layers = carried;
  const auto& tensors = model.source().tensors();
  for (PlanRow& row : plan.rows) {
    plan.bytes_in += row.bytes_in;
    if (row.action == Action::drop) continue;
    row.output = plan.specs.size();
    if (!row.layout) {
      add_spec(plan, row, row.stored_as.empty() ? tensors[row.source].name : row.stored_as, tensors[row.source].dtype,
               tensors[row.source].shape);
    } else if (row.codes_only) {
      add_spec(plan, row, tensors[row.source].name, row.layout->tensors[0].dtype, row.shape);
    } else {
      const std::string& weight = tensors[row.source].name;
      const std::string layer = weight.substr(0, weight.rfind('.') == std::string::npos ? 0 : weight.rfind('.'));
      for (size_t i = 0; i < row.layout->tensors.size(); ++i) {
        const auto& stored = row.layout->tensors[i];
        add_spec(plan, row, i == 0 ? weight : layer + "." + stored.suffix, stored.dtype, stored.shape);
      }
      row.has_marker = row.layout->format->quantized;
      if (row.has_marker) {
        add_spec(plan, row, layer + "." + std::string(checkpoint::kMarkerSuffix), DType::u8,
                 {static_cast<int64_t>(row.marker.size())});
        layers.emplace_back(layer, row.marker);
      }
      if (row.input_scale) add_spec(plan, row, layer + "." + std::string(checkpoint::kInputScale), DType::f32, {});
      if (row.smoothing && !row.norm)
        add_spec(plan, row, layer + "." + std::string(checkpoint::kPreQuantScale), DType::f32, {row.layout->cols});
    }
    plan.bytes_out += row.bytes_out;
  }
  plan.layout = io::plan_output(
      plan.output, plan.specs,
      {.metadata = output_metadata(plan, model, layers), .max_shard_bytes = plan.options.max_shard_bytes});
}

void estimate(Plan& plan, const checkpoint::Model& model) {
  // Fewer threads where their tiles would not fit: a tile holds at least one granule of rows.
  for (;; --plan.threads) {
    const uint64_t buffers = buffer_bytes(plan, model);
    plan.peak_memory = kFixedBytes + model.source().tensors().size() * kTensorBytes + buffers +
                       (plan.calibration ? plan.calibration->bytes() : 0);
    if (buffers <= plan.options.max_memory || plan.threads <= 1) break;
  }

  uint64_t stored = 0, elements = 0;
  for (const PlanRow& row : plan.rows) {
    const auto& info = model.source().tensors()[row.source];
    const Shape& shape = row.codes_only ? row.shape : row.layout ? row.layout->shape : info.shape;
    if (row.action == Action::drop || shape.size() < 2) continue;
    const uint64_t count = element_count(shape).value_or(0);
    const bool quantized = row.layout && row.layout->format->quantized;
    (quantized ? plan.quantized_weights : plan.kept_weights) += count;
    elements += count;
    stored += row.bytes_out;
  }
  plan.bits_per_weight = elements == 0 ? 0 : 8.0 * static_cast<double>(stored) / static_cast<double>(elements);
  plan.seconds_estimate = std::max({static_cast<double>(plan.bytes_in) / kReadBytesPerSecond,
                                    static_cast<double>(plan.layout.total_bytes) / kWriteBytesPerSecond,
                                    total_work(plan) / static_cast<double>(plan.threads)});
}

}  // namespace mezzotint::convert
