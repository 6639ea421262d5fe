#include "mezzotint/run/bench/layers.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mezzotint/base/error.h"
#include "mezzotint/run/bench/answer.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::run::bench {
namespace {

constexpr int64_t kCheckedRows = 64;
constexpr uint64_t kWeightSeed = 1, kInputSeed = 2;

class Layer {
 public:
  Layer(const Setup& setup, const LayerCase& layer) : device_(setup.device) {
    w_ = normal({layer.n, layer.k}, 1 / std::sqrt(static_cast<double>(layer.k)), kWeightSeed).to(at::kBFloat16);
    x_ = normal({layer.m, layer.k}, 1, kInputSeed).to(at::kBFloat16).to(device_);
    const int64_t step = (layer.m + kCheckedRows - 1) / kCheckedRows;
    checked_ = at::arange(0, layer.m, step, at::TensorOptions(at::kLong).device(device_));
    rows_ = x_.index_select(0, checked_).to(at::kFloat);
    exact_ = at::linear(rows_, w_.to(device_, at::kFloat));
  }

  void add(at::ScalarType type, Table& table) {
    const at::Tensor w = w_.to(device_, type), x = x_.to(type);
    Row row{.name = type == at::kFloat ? "fp32" : type == at::kHalf ? "fp16" : "bf16", .bytes = w.nbytes()};
    row.path = "torch";
    row.error = relative_error(at::linear(x, w).index_select(0, checked_), exact_);
    row.wrong = row.error > 0.01;
    add(std::move(row), table, [x, w] { at::linear(x, w); });
  }

  void add(const std::string& format, Table& table) {
    Row row{.name = format};
    try {
      const at::Tensor w = tensor::from_float(w_, format, {.effort = 0}).to(device_);
      row.bytes = tensor::quantized(w).stored()->bytes();
      const at::Tensor decoded = tensor::dequantized(w, at::kFloat);
      row.weight_error = relative_error(decoded, w_.to(device_));
      const Answer answer = watch([&] { return at::linear(x_, w); });
      row.path = answer.path;
      row.dequantized = answer.dequantized;
      const at::Tensor y = answer.y.index_select(0, checked_);
      row.error = relative_error(y, exact_);
      row.wrong = !is_near(relative_error(y, at::linear(rows_, decoded)), *row.weight_error);
      add(std::move(row), table, [x = x_, w] { at::linear(x, w); });
    } catch (const Error& error) {
      row.problem = fmt::format("{}: {}", error.info().name, error.info().problem);
      table.rows.push_back(std::move(row));
      contenders.emplace_back();
    }
  }

  std::vector<std::function<void()>> contenders;  ///< parallel to the table's rows

 private:
  void add(Row row, Table& table, std::function<void()> run) {
    if (row.wrong) row.problem = fmt::format("WRONG, not timed: error {:.2e}", row.error);
    contenders.push_back(row.wrong ? std::function<void()>() : std::move(run));
    table.rows.push_back(std::move(row));
  }

  c10::Device device_;
  at::Tensor w_, x_, checked_, rows_, exact_;
};

}  // namespace

std::vector<LayerCase> layer_cases(const Setup::Model& model, const std::vector<int64_t>& m) {
  const int64_t width = model.config.width, feed = model.config.feed_forward, tokens = model.long_sequence;
  if (m.empty())
    return {{"first layer, small batch", 16, width, width},
            {"attention, long sequence", tokens, width, width},
            {"MLP down, long sequence", tokens, width, feed},
            {"attention, medium sequence", std::max<int64_t>(1, tokens / 4), width, width}};
  std::vector<LayerCase> cases;
  for (const int64_t rows : m) {
    cases.push_back({"attention", rows, width, width});
    cases.push_back({"MLP up", rows, feed, width});
    cases.push_back({"MLP down", rows, width, feed});
  }
  return cases;
}

Table measure_layer(const Setup& setup, const std::string& model, const LayerCase& layer) {
  Table table{
      .model = model,
      .what = layer.what,
      .sizes = {{"m", layer.m}, {"n", layer.n}, {"k", layer.k}},
      .operations = 2.0 * static_cast<double>(layer.m) * static_cast<double>(layer.n) * static_cast<double>(layer.k)};
  Layer contest(setup, layer);
  contest.add(at::kBFloat16, table);
  if (setup.fp32) contest.add(at::kFloat, table);
  if (computes_in_half(setup.device)) contest.add(at::kHalf, table);
  for (const std::string& format : setup.formats) contest.add(format, table);

  std::vector<std::function<void()>> runs;
  for (const auto& run : contest.contenders)
    if (run) runs.push_back(run);
  const std::vector<Timing> timings = take_turns(runs, setup.clock);
  auto timing = timings.begin();
  for (size_t i = 0; i < table.rows.size(); ++i)
    if (contest.contenders[i]) table.rows[i].timing = *timing++;
  return table;
}

}  // namespace mezzotint::run::bench
