#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/convert/correction/correction.h"

namespace mezzotint::cli {
namespace {

struct CorrectArguments {
  std::string original, quantized, dtype = "fp16", max_memory;
  OutputArguments output;
  std::vector<std::string> calibration;
  int64_t rank = convert::CorrectionOptions().rank;
  size_t top = 10;
  int threads = 0;
  bool json = false;
};

DType dtype_of(const std::string& text) {
  if (text == "fp16") return DType::f16;
  if (text == "bf16") return DType::bf16;
  if (text == "fp32") return DType::f32;
  throw UsageError(fmt::format("--dtype has no '{}'. It is fp16, bf16 or fp32.", text));
}

nlohmann::ordered_json optional(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

void print_json(const CorrectArguments& arguments, const convert::Correction& result) {
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
                      {"output_error_before", optional(layer.output_before)},
                      {"output_error_after", optional(layer.output_after)},
                      {"reason", layer.reason}});
  const nlohmann::ordered_json root{{"original", arguments.original},
                                    {"quantized", arguments.quantized},
                                    {"output", arguments.output.output},
                                    {"written", result.written},
                                    {"bytes", result.bytes},
                                    {"identical", result.identical},
                                    {"weight_error_before", result.weight_before},
                                    {"weight_error_after", result.weight_after},
                                    {"output_error_before", optional(result.output_before)},
                                    {"output_error_after", optional(result.output_after)},
                                    {"warnings", result.warnings},
                                    {"layers", std::move(layers)}};
  fmt::print("{}\n", root.dump(2));
}

std::string percent(double value) {
  return fmt::format("{:.4f}", 100 * value);
}

void print_text(const CorrectArguments& arguments, const convert::Correction& result) {
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

int run_correct(const CorrectArguments& arguments) {
  const auto original = checkpoint::Model::open(arguments.original);
  const auto quantized = checkpoint::Model::open(arguments.quantized);
  convert::CorrectionOptions options;
  options.rank = arguments.rank;
  options.dtype = dtype_of(arguments.dtype);
  options.calibration = {arguments.calibration.begin(), arguments.calibration.end()};
  if (!arguments.max_memory.empty()) options.max_memory = parse_size(arguments.max_memory);
  options.threads = arguments.threads;
  options.overwrite = arguments.output.force;
  const ScopedInterrupt scoped;
  options.cancel = &interrupted();
  convert::Correction result;
  {
    ProgressDisplay progress("correcting", arguments.output.quiet);
    options.progress = [&](uint64_t done, uint64_t total, const std::string& layer) {
      progress.update(done, total, layer);
    };
    result = convert::write_correction(original, quantized, arguments.output.output, options);
  }
  for (const auto& warning : result.warnings) warn(warning);
  if (arguments.json)
    print_json(arguments, result);
  else if (!arguments.output.quiet)
    print_text(arguments, result);
  return kDone;
}

}  // namespace

void add_correct(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<CorrectArguments>();
  CLI::App* sub =
      app.add_subcommand("correct", "Write what quantization lost, as far as a LoRA can hold it, as a LoRA file");
  sub->add_option("original", arguments->original, "The original: file, index or folder")->required()->type_name("A");
  sub->add_option("quantized", arguments->quantized, "What it was converted to")->required()->type_name("B");
  add_output_options(*sub, arguments->output, "LoRA file to write", true);
  sub->add_option("--rank", arguments->rank,
                  fmt::format("Rank of the correction of every layer. Default: {}", arguments->rank))
      ->type_name("N")
      ->check(CLI::Range(1, 4096).description(""));
  sub->add_option("--calibration", arguments->calibration,
                  "Files with statistics of the layers' inputs: correct the error of outputs, not of weights")
      ->type_name("FILE...")
      ->type_size(1)
      ->expected(1, 1 << 20);
  sub->add_option("--dtype", arguments->dtype, "Of the LoRA: fp16, bf16 or fp32. Default: fp16")->type_name("NAME");
  sub->add_option("--max-memory", arguments->max_memory,
                  "Half of it holds errors, which are decoded again and again where they do not fit. Default: 1GiB")
      ->type_name("SIZE");
  sub->add_option("--top", arguments->top, "Layers to print, worst first. Default: 10")->type_name("N");
  add_threads_option(*sub, arguments->threads);
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_correct(*arguments); }; });
}

}  // namespace mezzotint::cli
