#include "mezzotint/convert/compare.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/fidelity_text.h"
#include "mezzotint/cli/merge_options.h"
#include "mezzotint/cli/messages.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/report_file.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/convert/report/make_report.h"

namespace mezzotint::cli {
namespace {

struct CompareArguments {
  std::string a, b, html;
  std::vector<std::string> loras;
  bool no_dampen = false, strict = false;
  size_t top = 10;
  int threads = 0;
  bool json = false, quiet = false;
};

// JSON has no infinity: an exact layer has no SQNR.
nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

void print_json(const convert::Comparison& result, const std::optional<convert::Fidelity>& fidelity) {
  auto layers = nlohmann::ordered_json::array();
  for (const auto& layer : result.layers)
    layers.push_back({{"name", layer.name},
                      {"from", layer.from},
                      {"to", layer.to},
                      {"elements", layer.elements},
                      {"relative_error", number(layer.relative_error)},
                      {"sqnr_db", number(layer.sqnr_db)},
                      {"max_error", number(layer.max_error)},
                      {"cosine", number(layer.cosine)},
                      {"non_finite", layer.non_finite}});
  nlohmann::ordered_json root{{"relative_error", number(result.relative_error)},
                              {"mean_relative_error", number(result.mean_relative_error)},
                              {"worst_sqnr_db", number(result.worst_sqnr_db)},
                              {"identical_tensors", result.identical_tensors},
                              {"rescaled", result.rescaled},
                              {"only_in_a", result.only_in_a},
                              {"only_in_b", result.only_in_b},
                              {"shape_differs", result.shape_differs},
                              {"layers", std::move(layers)}};
  if (fidelity) root["adapters"] = fidelity_json(*fidelity);
  fmt::print("{}\n", root.dump(2));
}

std::string decibels(double value) {
  return std::isinf(value) && value > 0 ? "exact" : fmt::format("{:.2f}", value);
}

void print_names(const char* heading, const std::vector<std::string>& names, size_t top) {
  if (names.empty()) return;
  fmt::print("{}: {}\n", heading, names.size());
  for (size_t i = 0; i < std::min(top, names.size()); ++i) fmt::print("  {}\n", names[i]);
  if (names.size() > top) fmt::print("  ... {} more\n", names.size() - top);
}

void print_text(const convert::Comparison& result, size_t top) {
  Table table({"LAYER", "A", "B", ">REL. ERROR %", ">SQNR dB", ">MAX ERROR", ">COSINE", ">NOT FINITE"});
  for (size_t i = 0; i < std::min(top, result.layers.size()); ++i) {
    const auto& layer = result.layers[i];
    table.add({layer.name, layer.from, layer.to, fmt::format("{:.4f}", 100 * layer.relative_error),
               decibels(layer.sqnr_db), fmt::format("{:.4g}", layer.max_error), fmt::format("{:.7f}", layer.cosine),
               layer.non_finite == 0 ? "-" : fmt::format("{}", layer.non_finite)});
  }
  if (!result.layers.empty()) fmt::print("{}", table.to_text());
  if (result.layers.size() > top) fmt::print("... {} more (--top N shows them)\n", result.layers.size() - top);
  print_names("Only in A", result.only_in_a, top);
  print_names("Only in B", result.only_in_b, top);
  print_names("Shapes differ", result.shape_differs, top);
  fmt::print(
      "{} layers differ: relative error {:.4f} % in all, {:.4f} % on average, worst SQNR {} dB; {} tensors are "
      "identical.\n",
      result.layers.size(), 100 * result.relative_error, 100 * result.mean_relative_error,
      decibels(result.worst_sqnr_db), result.identical_tensors);
  if (result.rescaled > 0)
    fmt::print("{} layers and norms of B were smoothed together (--smooth) and are compared without these factors.\n",
               result.rescaled);
}

convert::FidelityOptions fidelity_options(const CompareArguments& arguments) {
  convert::FidelityOptions options;
  for (const std::string& text : arguments.loras) options.loras.push_back(parse_lora(text));
  options.dampen = !arguments.no_dampen;
  options.strict = arguments.strict;
  options.threads = arguments.threads;
  return options;
}

int run_compare(const CompareArguments& arguments) {
  if (arguments.loras.empty() && (arguments.no_dampen || arguments.strict))
    throw UsageError("--no-dampen and --strict need adapters: give --lora.");
  const auto a = checkpoint::Model::open(arguments.a);
  const auto b = checkpoint::Model::open(arguments.b);
  convert::Comparison result;
  {
    ProgressDisplay progress("comparing", arguments.quiet);
    result = convert::compare(a, b, arguments.threads,
                              [&](uint64_t done, uint64_t total) { progress.update(done, total, {}); });
  }
  std::optional<convert::Fidelity> fidelity;
  if (!arguments.loras.empty()) {
    ProgressDisplay progress("looking for adapters", arguments.quiet);
    convert::FidelityOptions options = fidelity_options(arguments);
    options.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total, {}); };
    fidelity = convert::measure_fidelity(a, b, options);
  }
  if (!arguments.html.empty()) {
    convert::Report report = convert::make_report(result, a, b);
    report.input = arguments.a;
    report.output = arguments.b;
    if (fidelity) convert::add_fidelity(report, *fidelity);
    write_report(report, arguments.html);
  }
  if (fidelity)
    for (const auto& warning : fidelity->warnings) warn(warning);
  if (arguments.json) {
    print_json(result, fidelity);
  } else {
    print_text(result, arguments.top);
    if (fidelity) print_fidelity(*fidelity, arguments.top);
  }
  return kDone;
}

}  // namespace

void add_compare(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* sub = app.add_subcommand("compare", "Measure how far the weights of B are from those of A, layer by layer");
  sub->add_option("a", arguments->a, "The original: file, index or folder")->required()->type_name("A");
  sub->add_option("b", arguments->b, "The other one")->required()->type_name("B");
  add_repeated(sub, "--lora", arguments->loras,
               "Adapter that B was made from A with (`merge`): how much of it is in B, layer by layer. Repeatable, in "
               "the order of the merge; strength 1 where none is given")
      ->type_name("FILE[:STRENGTH]");
  sub->add_flag("--no-dampen", arguments->no_dampen,
                "All adapters were merged with their full strength; else the n-th with 0.9^(n-1) of it");
  sub->add_flag("--strict", arguments->strict, "Stop where anything in an adapter has no place in A");
  sub->add_option("--top", arguments->top, "Layers to print, worst first. Default: 10")->type_name("N");
  sub->add_option("--html", arguments->html, "Write a report to look at, and its numbers as JSON beside it")
      ->type_name("FILE");
  add_threads_option(*sub, arguments->threads);
  add_json_option(*sub, arguments->json);
  sub->add_flag("-q,--quiet", arguments->quiet, "No progress");
  sub->callback([arguments, &context] { context.action = [arguments] { return run_compare(*arguments); }; });
}

}  // namespace mezzotint::cli
