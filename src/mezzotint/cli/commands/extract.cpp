#include "mezzotint/convert/extraction/extraction.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/correction_command.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"

namespace mezzotint::cli {
namespace {

struct ExtractArguments {
  CorrectArguments shared;  // original = BASE, quantized = TUNED
  std::optional<double> alpha, strength;
  bool residual = false;
};

std::string rank_text(const convert::ExtractedTensor& tensor) {
  if (tensor.key.empty()) return "-";
  return tensor.rank > 0 ? fmt::format("{}", tensor.rank) : "whole";
}

void print_extraction_json(const CorrectArguments& arguments, const convert::Extraction& result) {
  auto tensors = nlohmann::ordered_json::array();
  for (const auto& tensor : result.tensors)
    tensors.push_back({{"name", tensor.name},
                       {"key", tensor.key},
                       {"from", tensor.from},
                       {"to", tensor.to},
                       {"shape", tensor.shape},
                       {"rank", tensor.rank},
                       {"change", tensor.change},
                       {"energy", tensor.energy},
                       {"reason", tensor.reason}});
  const nlohmann::ordered_json root{
      {"base", arguments.original},   {"tuned", arguments.quantized}, {"output", arguments.output.output},
      {"written", result.written},    {"bytes", result.bytes},        {"identical", result.identical},
      {"change", result.change},      {"energy", result.energy},      {"warnings", result.warnings},
      {"tensors", std::move(tensors)}};
  fmt::print("{}\n", root.dump(2));
}

void print_extraction(const CorrectArguments& arguments, const convert::Extraction& result) {
  Table table({"TENSOR", ">CHANGE %", ">RANK", ">KEPT %", ""});
  for (size_t i = 0; i < std::min(arguments.top, result.tensors.size()); ++i) {
    const auto& tensor = result.tensors[i];
    table.add({tensor.name, percent(tensor.change), rank_text(tensor), percent(tensor.energy), tensor.reason});
  }
  if (!result.tensors.empty() && arguments.top > 0) fmt::print("{}", table.to_text());
  if (result.tensors.size() > arguments.top)
    fmt::print("... {} more (--top N shows them)\n", result.tensors.size() - arguments.top);
  if (result.written == 0) {
    fmt::print("{}: nothing to extract; no file was written\n", arguments.output.output);
    return;
  }
  fmt::print("{}: {}, {} of {} tensors that differ; keeps {} % of the energy of a change of {} %\n",
             arguments.output.output, size_text(result.bytes), result.written, result.tensors.size(),
             percent(result.energy), percent(result.change));
}

int run_extract(const ExtractArguments& arguments) {
  const CorrectArguments& shared = arguments.shared;
  if (arguments.residual) {
    if (arguments.alpha || arguments.strength)
      throw UsageError("--alpha and --strength do not go with --residual: a correction is loaded at strength 1.");
    return run_correct(shared);
  }
  if (!shared.calibration.empty()) throw UsageError("--calibration goes with --residual.");
  auto options = shared_options<convert::ExtractOptions>(shared);
  options.alpha = arguments.alpha;
  options.strength = arguments.strength.value_or(1);
  const auto base = checkpoint::Model::open(shared.original), tuned = checkpoint::Model::open(shared.quantized);
  const auto result = with_progress("extracting", shared, std::move(options), [&](const auto& how) {
    return convert::extract_lora(base, tuned, shared.output.output, how);
  });
  for (const auto& warning : result.warnings) warn(warning);
  if (shared.json)
    print_extraction_json(shared, result);
  else if (!shared.output.quiet)
    print_extraction(shared, result);
  return kDone;
}

}  // namespace

void add_extract(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<ExtractArguments>();
  CorrectArguments& a = arguments->shared;
  CLI::App* sub = app.add_subcommand("extract", "Write what a model was tuned by as a LoRA file");
  sub->add_option("base", a.original, "The model before: file, index or folder, quantized or not")
      ->required()
      ->type_name("A");
  sub->add_option("tuned", a.quantized, "The model after")->required()->type_name("B");
  add_output_options(*sub, a.output, "LoRA file to write", true);
  add_rank_option(*sub, a, "Rank of every layer, or as many as it has");
  sub->add_option("--alpha", arguments->alpha,
                  "What is stored as alpha; the factors make up for it. Default: the rank of the layer")
      ->type_name("X");
  sub->add_option("--strength", arguments->strength,
                  "Part of the difference that the LoRA adds when loaded at strength 1. Default: 1")
      ->type_name("S");
  add_dtype_option(*sub, a);
  sub->add_flag("--residual", arguments->residual,
                "A is an original and B what it was quantized to: the same as `correct A B`, what quantization lost");
  add_calibration_option(*sub, a, "With --residual, as for `correct`");
  add_run_options(*sub, a, "differences", "Tensors to print, largest change");
  sub->callback([arguments, &context] { context.action = [arguments] { return run_extract(*arguments); }; });
}

}  // namespace mezzotint::cli
