#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/run/bench/arguments.h"
#include "mezzotint/run/bench/block.h"
#include "mezzotint/run/bench/layers.h"

namespace mezzotint::run::bench {
namespace {

constexpr int64_t kBlockTokens = 1024;  ///< on the CPU

/// A step of the whole model, one forward: the block that was measured as often as the model has it, and the rest.
nlohmann::ordered_json step(const Setup& setup, const Setup::Model& model, const Table& block, int64_t tokens) {
  const double rest = time_outside_blocks(setup, model, tokens);
  const auto layers = static_cast<double>(model.config.layers);
  nlohmann::ordered_json json{{"model", model.name},
                              {"tokens", tokens},
                              {"layers", model.config.layers},
                              {"outside_blocks_ms", rest},
                              {"how", "median of one block x layers + what is outside of blocks, measured"}};
  fmt::print("\n{}: one forward of {} tokens = {} x the block + {:.1f} ms outside of blocks (bf16)\n", model.name,
             tokens, model.config.layers, rest);
  double plain = 0;
  for (const Row& row : block.rows) {
    if (!row.problem.empty()) continue;
    const double ms = layers * row.timing.median() + rest;
    if (row.name == "bf16") plain = ms;
    const double base = row.base.turns.empty() ? plain : layers * row.base.median() + rest;
    fmt::print("  {:<26} {:>10.1f} ms {:>7.2f}x\n", row.name, ms, base / ms);
    json["rows"].push_back({{"name", row.name}, {"ms", ms}, {"speedup_over_bf16", base / ms}});
  }
  return json;
}

}  // namespace

bool wan(const Arguments& arguments) {
  const Setup setup = set_up(arguments);
  std::ofstream file;
  if (!arguments.json.empty()) {
    file.open(arguments.json);
    if (!file)
      throw Error({.name = "write-failed", .problem = "the results cannot be written", .file = arguments.json});
  }
  const Machine machine = this_machine(setup.device);
  print(machine);
  fmt::print("reference: torch in bf16{}\n",
             computes_in_half(setup.device) ? " and fp16" : "; no fp16, which this machine does not compute in");
  nlohmann::ordered_json json{{"machine", to_json(machine)}, {"clock", arguments.cpu_time ? "thread" : "wall"}};
  bool correct = true;
  const auto add = [&](const char* where, const Table& table) {
    print(table);
    json[where].push_back(to_json(table));
    correct &= std::none_of(table.rows.begin(), table.rows.end(), [](const Row& row) { return row.wrong; });
  };
  for (const Setup::Model& model : setup.models) {
    if (arguments.only != "block")
      for (const LayerCase& layer : layer_cases(model, arguments.m))
        add("layers", measure_layer(setup, model.name, layer));
    if (arguments.only == "layers") continue;
    int64_t tokens = model.long_sequence;
    if (setup.device.is_cpu()) tokens = std::min(tokens, kBlockTokens);
    tokens = arguments.block_tokens.value_or(tokens);
    const Table block = measure_block(setup, model, tokens);
    add("blocks", block);
    json["steps"].push_back(step(setup, model, block, tokens));
  }
  json["correct"] = correct;
  if (!arguments.json.empty()) {
    file << json.dump(1) << '\n';
    file.close();
    if (!file)
      throw Error({.name = "write-failed", .problem = "the results cannot be written", .file = arguments.json});
  }
  return correct;
}

}  // namespace mezzotint::run::bench
