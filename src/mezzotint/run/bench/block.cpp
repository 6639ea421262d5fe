#include "mezzotint/run/bench/block.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "mezzotint/base/error.h"
#include "mezzotint/models/wan/wan.h"
#include "mezzotint/run/bench/answer.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::run::bench {
namespace {

constexpr int64_t kText = 512;  ///< tokens of text, what the published models are given

/// Fills a module and its children with random parameters in `type`, weights of linear layers quantized where `format`
/// is not empty: the same values for every type and format. Returns bytes of parameters; adds up errors of weights.
class Filler {
 public:
  Filler(c10::Device device, at::ScalarType type, std::string format)
      : device_(device), type_(type), format_(std::move(format)) {}

  void fill(torch::nn::Module& module) {
    for (const auto& parameter : module.named_parameters(false))
      dynamic_cast<nn::Layer&>(module).exchange(parameter.key(), value(parameter.key(), parameter.value().sizes()));
    for (const auto& child : module.named_children()) fill(*child.value());
  }
  uint64_t bytes = 0;
  double weight_error = 0;  ///< the largest

 private:
  at::Tensor value(const std::string& name, at::IntArrayRef shape) {
    const bool matrix = shape.size() == 2 && name == "weight", norm = shape.size() == 1 && name == "weight";
    const double deviation = matrix ? 1 / std::sqrt(static_cast<double>(shape[1])) : 0.02;
    at::Tensor values = normal(shape, deviation, ++seed_);
    if (norm) values += 1;
    values = values.to(at::kBFloat16);  // as files have them
    if (!matrix || format_.empty()) {
      bytes += static_cast<uint64_t>(values.numel()) * c10::elementSize(type_);
      return values.to(device_, type_);
    }
    at::Tensor quantized = tensor::from_float(values, format_, {.effort = 0}).to(device_);
    bytes += tensor::quantized(quantized).stored()->bytes();
    weight_error =
        std::max(weight_error, relative_error(tensor::dequantized(quantized, at::kFloat), values.to(device_)));
    return quantized;
  }

  c10::Device device_;
  at::ScalarType type_;
  std::string format_;
  uint64_t seed_ = 100;
};

/// Frames, rows and columns of so many tokens.
std::array<int64_t, 3> grid_of(int64_t tokens) {
  const auto divisor = [](int64_t n) {
    int64_t largest = 1;
    for (int64_t d = 1; d <= 32; ++d)
      if (n % d == 0) largest = d;
    return largest;
  };
  const int64_t columns = divisor(tokens), rows = divisor(tokens / columns);
  return {tokens / columns / rows, rows, columns};
}

struct Inputs {
  at::Tensor x, time, text, turns;
  Inputs(const Setup& setup, const models::wan::Config& config, int64_t tokens, at::ScalarType type) {
    const auto make = [&](at::IntArrayRef shape, double deviation, uint64_t seed) {
      return normal(shape, deviation, seed).to(at::kBFloat16).to(setup.device, type);
    };
    const auto grid = grid_of(tokens);
    x = make({1, tokens, config.width}, 1, 11);
    time = make({1, 1, 6, config.width}, 0.5, 12);
    text = make({1, kText, config.width}, 1, 13);
    turns = models::wan::rotary_turns(config.width / config.heads, grid[0], grid[1], grid[2]).to(setup.device);
  }
};

at::Tensor run(const models::wan::Block& block, const Inputs& inputs) {
  return block.forward(inputs.x, inputs.time, inputs.text, inputs.turns);
}

double block_operations(const models::wan::Config& config, int64_t tokens) {
  const auto c = static_cast<double>(config.width), f = static_cast<double>(config.feed_forward),
             l = static_cast<double>(tokens), t = static_cast<double>(kText);
  const double linear = l * (6 * c * c + 2 * c * f) + t * 2 * c * c;
  const double attention = 2 * l * l * c + 2 * l * t * c;
  return 2 * (linear + attention);
}

}  // namespace

Table measure_block(const Setup& setup, const Setup::Model& model, int64_t tokens) {
  Table table{.model = model.name,
              .what = "one block",
              .sizes = {{"tokens", tokens}},
              .operations = block_operations(model.config, tokens)};
  at::Tensor added;  // in float32
  {
    models::wan::Block block(model.config);
    Filler(setup.device, at::kFloat, "").fill(block);
    const Inputs inputs(setup, model.config, tokens, at::kFloat);
    added = run(block, inputs) - inputs.x;
  }
  models::wan::Block plain(model.config);
  Filler filler(setup.device, at::kBFloat16, "");
  filler.fill(plain);
  const Inputs inputs(setup, model.config, tokens, at::kBFloat16);
  const auto error_of = [&](const at::Tensor& y) { return relative_error(y.to(at::kFloat) - inputs.x, added); };
  table.rows.push_back({.name = "bf16", .bytes = filler.bytes, .error = error_of(run(plain, inputs)), .path = "torch"});

  for (const std::string& format : setup.formats) {
    Row row{.name = format};
    try {
      models::wan::Block block(model.config);
      Filler quantizer(setup.device, at::kBFloat16, format);
      quantizer.fill(block);
      row.bytes = quantizer.bytes;
      row.weight_error = quantizer.weight_error;
      const Answer answer = watch([&] { return run(block, inputs); });
      row.path = answer.path;
      row.dequantized = answer.dequantized;
      row.error = error_of(answer.y);
      // Every layer adds its error; no more than a few are on the way to any value.
      row.wrong = row.error > std::max(0.1, 4 * quantizer.weight_error);
      if (row.wrong) {
        row.problem = fmt::format("WRONG, not timed: error {:.2e}", row.error);
      } else {
        auto timings = take_turns({[&] { run(plain, inputs); }, [&] { run(block, inputs); }}, setup.clock);
        row.timing = timings[1];
        row.base = timings[0];
        auto& turns = table.rows[0].timing.turns;
        turns.insert(turns.end(), timings[0].turns.begin(), timings[0].turns.end());
      }
    } catch (const Error& error) {
      row.problem = fmt::format("{}: {}", error.info().name, error.info().problem);
    }
    table.rows.push_back(std::move(row));
  }
  if (table.rows[0].timing.turns.empty())
    table.rows[0].timing = take_turns({[&] { run(plain, inputs); }}, setup.clock)[0];
  return table;
}

double time_outside_blocks(const Setup& setup, const Setup::Model& model, int64_t tokens) {
  models::wan::Config config = model.config;
  config.layers = 0;
  models::wan::Transformer rest(config);
  Filler(setup.device, at::kBFloat16, "").fill(rest);
  const auto grid = grid_of(tokens);
  const auto bf16 = [&](at::IntArrayRef shape, uint64_t seed) {
    return normal(shape, 1, seed).to(at::kBFloat16).to(setup.device);
  };
  const auto& p = config.patch;
  const at::Tensor x = bf16({1, config.channels_in, grid[0] * p[0], grid[1] * p[1], grid[2] * p[2]}, 21);
  const at::Tensor text = bf16({1, kText, config.text_width}, 22);
  const at::Tensor time = (normal({1}, 0, 23) + 500).to(setup.device);
  return take_turns({[&] { rest.forward(x, time, text); }}, setup.clock)[0].best();
}

}  // namespace mezzotint::run::bench
