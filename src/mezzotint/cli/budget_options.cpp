#include "mezzotint/cli/budget_options.h"

#include <fmt/format.h>

#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/paths.h"

namespace mezzotint::cli {
namespace {

constexpr size_t kRaisedLines = 30;

/// Formats separated by commas; commas inside a format's options ("a:b=1,c=2") have no format before their '='.
std::vector<std::string> split_formats(const std::string& text) {
  std::vector<std::string> formats;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string part = text.substr(begin, end - begin);
    const size_t equals = part.find('='), colon = part.find(':');
    const bool continues = equals != std::string::npos && (colon == std::string::npos || colon > equals);
    if (continues && !formats.empty())
      formats.back() += "," + part;
    else
      formats.push_back(std::move(part));
    begin = end + 1;
  }
  return formats;
}

convert::BudgetRequest request_of(const BudgetArguments& arguments, const ConversionArguments& conversion) {
  const int targets =
      arguments.target_size.has_value() + arguments.target_bpw.has_value() + arguments.max_error.has_value();
  if (targets > 1) throw UsageError("--target-size, --target-bpw and --max-error are three targets; give one of them.");
  if (targets == 1 && conversion.to)
    throw UsageError("--to is one format for all layers; under a target, --formats names those to choose from.");
  convert::BudgetRequest request;
  if (arguments.formats) request.formats = split_formats(*arguments.formats);
  if (arguments.target_size) request.target_bytes = parse_size(*arguments.target_size);
  request.target_bpw = arguments.target_bpw;
  request.max_error = arguments.max_error;
  request.promote_above = arguments.promote_above;
  return request;
}

std::string mix_text(const convert::FrontierPoint& point) {
  std::string text;
  for (const auto& [format, layers] : point.mix)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", layers, format);
  return text;
}

}  // namespace

void add_budget_options(CLI::App& app, BudgetArguments& a) {
  const auto group = [](CLI::Option* option) { return option->group("Size budget"); };
  group(app.add_option("--target-size", a.target_size,
                       "Choose a format for every layer so that the output is at most this large"))
      ->type_name("SIZE");
  group(app.add_option("--target-bpw", a.target_bpw, "The same for the bits per weight, scales included"))
      ->type_name("BITS");
  group(app.add_option("--max-error", a.max_error,
                       "The other way round: the smallest output whose estimated relative error is at most this"))
      ->type_name("ERROR");
  std::string defaults;
  for (const auto& format : convert::default_budget_formats()) defaults += (defaults.empty() ? "" : ",") + format;
  group(app.add_option("--formats", a.formats,
                       fmt::format("Formats to choose from; a plain one (bf16) means: keep. Default: {}", defaults)))
      ->type_name("FORMAT,...");
  group(app.add_option("--promote-above", a.promote_above,
                       "Raise layers whose relative error would be above this to a better one of --formats"))
      ->type_name("ERROR");
}

std::string output_label(const BudgetArguments& arguments, const convert::ConvertOptions& options) {
  if (options.to.empty()) return "merged";
  return arguments.has_target() ? "mixed" : convert::file_label(formats::select_format(options.to));
}

std::optional<convert::Budget> apply_budget(const BudgetArguments& arguments, const ConversionArguments& conversion,
                                            const checkpoint::Model& model, const std::filesystem::path& output,
                                            bool quiet, convert::ConvertOptions& options) {
  if (!arguments.has_target() && !arguments.promote_above) {
    if (arguments.formats)
      throw UsageError(
          "--formats needs a target: --target-size, --target-bpw or --max-error, or --promote-above a bound.");
    return std::nullopt;
  }
  const convert::BudgetRequest request = request_of(arguments, conversion);
  convert::BudgetRun run{.threads = convert::thread_count(conversion.threads)};
  std::optional<convert::Calibration> calibration;
  if (!options.calibration.empty()) {
    calibration = convert::Calibration::open({options.calibration.begin(), options.calibration.end()});
    run.column_moments = [&](std::string_view layer) -> std::span<const float> {
      const convert::LayerStatistics* statistics = calibration->find(layer);
      return statistics == nullptr ? std::span<const float>() : statistics->second_moment;
    };
  }
  ProgressDisplay progress("measuring", quiet);
  run.progress = [&](uint64_t done, uint64_t total, const std::string& layer) { progress.update(done, total, layer); };
  convert::Budget budget = convert::choose_budget(model, output, options, request, run);
  options = budget.options;
  return budget;
}

std::string budget_text(const convert::Budget& budget) {
  std::string text = fmt::format("budget: {} bytes, {:.2f} bits per weight, estimated relative error {:.4f}\n",
                                 budget.bytes, budget.bits_per_weight, budget.error);
  if (!budget.frontier.empty()) {
    Table table({"", ">SIZE", ">BITS/WEIGHT", ">ERROR", "LAYERS"});
    for (const auto& point : budget.frontier)
      table.add({point.chosen ? "->" : "", size_text(point.bytes), fmt::format("{:.2f}", point.bits_per_weight),
                 fmt::format("{:.4f}", point.error), mix_text(point)});
    text += table.to_text();
  }
  size_t raised = 0;
  for (const auto& layer : budget.layers) {
    if (layer.raised_from.empty() || ++raised > kRaisedLines) continue;
    text += fmt::format("raised: {} from {} (error {:.4f}) to {} ({:.4f})\n", layer.layer, layer.raised_from,
                        layer.raised_error, layer.format, layer.relative_error);
  }
  if (raised > kRaisedLines) text += fmt::format("raised: {} more; --json names them all\n", raised - kRaisedLines);
  return text;
}

}  // namespace mezzotint::cli
