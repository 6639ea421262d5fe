#include "mezzotint/cli/correction_command.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"

namespace mezzotint::cli {
namespace {

nlohmann::ordered_json number_or_null(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

void print_correction_json(const CorrectArguments& arguments, const convert::Correction& result) {
  auto layers = nlohmann::ordered_json::array();
  for (const auto& layer : result.layers)
    layers.push_back({{"name", layer.name},
                      {"key", layer.key},
                      {"from", layer.from},
                      {"to", layer.to},
                      {"shape", {layer.rows, layer.cols}},
                      {"rank", layer.rank},
                      {"metric", name(layer.metric)},
                      {"weight_error_before", layer.weight_before},
                      {"weight_error_after", layer.weight_after},
                      {"output_error_before", number_or_null(layer.output_before)},
                      {"output_error_after", number_or_null(layer.output_after)},
                      {"reason", layer.reason}});
  const nlohmann::ordered_json root{{"original", arguments.original},
                                    {"quantized", arguments.quantized},
                                    {"output", arguments.output.output},
                                    {"written", result.written},
                                    {"bytes", result.bytes},
                                    {"identical", result.identical},
                                    {"weight_error_before", result.weight_before},
                                    {"weight_error_after", result.weight_after},
                                    {"output_error_before", number_or_null(result.output_before)},
                                    {"output_error_after", number_or_null(result.output_after)},
                                    {"warnings", result.warnings},
                                    {"layers", std::move(layers)}};
  fmt::print("{}\n", root.dump(2));
}

void print_correction(const CorrectArguments& arguments, const convert::Correction& result) {
  Table table({"LAYER", "STORED AS", ">ERROR %", ">AFTER %", "OF", ""});
  for (size_t i = 0; i < std::min(arguments.top, result.layers.size()); ++i) {
    const auto& layer = result.layers[i];
    table.add({layer.name, layer.to, percent(layer.before()), percent(layer.after()),
               layer.output_before ? "output" : "weight", layer.reason});
  }
  if (!result.layers.empty() && arguments.top > 0) fmt::print("{}", table.to_text());
  if (result.layers.size() > arguments.top)
    fmt::print("... {} more (--top N shows them)\n", result.layers.size() - arguments.top);
  if (result.written == 0) {
    fmt::print("{}: nothing to correct; no file was written\n", arguments.output.output);
    return;
  }
  fmt::print("{}: {}, corrects {} of {} layers that differ; error of weights {} % -> {} %", arguments.output.output,
             size_text(result.bytes), result.written, result.layers.size(), percent(result.weight_before),
             percent(result.weight_after));
  if (result.output_before)
    fmt::print(", of outputs {} % -> {} %", percent(*result.output_before), percent(*result.output_after));
  fmt::print(
      "\nLoad it beside the quantized model with a node that does not merge (ComfyUI: Load LoRA (Bypass)): merging "
      "rounds it away.\n");
}

}  // namespace

void add_rank_option(CLI::App& app, CorrectArguments& arguments, const char* help) {
  app.add_option("--rank", arguments.rank, fmt::format("{}. Default: {}", help, arguments.rank))
      ->type_name("N")
      ->check(CLI::Range(1, 4096).description(""));
}

void add_calibration_option(CLI::App& app, CorrectArguments& arguments, const char* help) {
  app.add_option("--calibration", arguments.calibration, help)
      ->type_name("FILE...")
      ->type_size(1)
      ->expected(1, 1 << 20);
}

void add_dtype_option(CLI::App& app, CorrectArguments& arguments) {
  app.add_option("--dtype", arguments.dtype, "Of the LoRA: fp16, bf16 or fp32. Default: fp16")->type_name("NAME");
}

void add_run_options(CLI::App& app, CorrectArguments& arguments, const char* kept, const char* listed) {
  app.add_option("--max-memory", arguments.max_memory,
                 fmt::format("Half of it holds {}, which are decoded again and again where they do not fit. "
                             "Default: 1GiB",
                             kept))
      ->type_name("SIZE");
  app.add_option("--top", arguments.top, fmt::format("{} first. Default: {}", listed, arguments.top))->type_name("N");
  add_threads_option(app, arguments.threads);
  add_json_option(app, arguments.json);
}

DType lora_dtype(const std::string& text) {
  if (text == "fp16") return DType::f16;
  if (text == "bf16") return DType::bf16;
  if (text == "fp32") return DType::f32;
  throw UsageError(fmt::format("--dtype has no '{}'. It is fp16, bf16 or fp32.", text));
}

std::string percent(double value) {
  return fmt::format("{:.4f}", 100 * value);
}

int run_correct(const CorrectArguments& arguments) {
  const auto original = checkpoint::Model::open(arguments.original);
  const auto quantized = checkpoint::Model::open(arguments.quantized);
  auto options = shared_options<convert::CorrectionOptions>(arguments);
  options.calibration = {arguments.calibration.begin(), arguments.calibration.end()};
  const auto result = with_progress("correcting", arguments, std::move(options), [&](const auto& how) {
    return convert::write_correction(original, quantized, arguments.output.output, how);
  });
  for (const auto& warning : result.warnings) warn(warning);
  if (arguments.json)
    print_correction_json(arguments, result);
  else if (!arguments.output.quiet)
    print_correction(arguments, result);
  return kDone;
}

}  // namespace mezzotint::cli
