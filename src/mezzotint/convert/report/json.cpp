#include <cmath>
#include <nlohmann/json.hpp>

#include "mezzotint/convert/report/findings.h"
#include "mezzotint/convert/report/html_parts.h"

namespace mezzotint::convert {
namespace {

using nlohmann::ordered_json;

// JSON has no infinity.
ordered_json number(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json();
}

void add_text(ordered_json& object, const char* name, const std::string& text) {
  if (!text.empty()) object[name] = text;
}

ordered_json layer_json(const ReportLayer& layer, const LayerStanding& standing) {
  const MeasuredErrors& errors = layer.errors;
  ordered_json out{
      {"name", layer.name},   {"fate", name(layer.fate)},   {"from", layer.from},          {"to", layer.to},
      {"shape", layer.shape}, {"bytes_in", layer.bytes_in}, {"bytes_out", layer.bytes_out}};
  if (layer.fate == Fate::measured) {
    out["elements"] = errors.elements;
    out["relative_error"] = number(errors.relative_error());
    if (standing.typical > 0) out["times_typical"] = number(errors.relative_error() / standing.typical);
    if (standing.stands_out) out["stands_out"] = true;
    out["sqnr_db"] = number(errors.sqnr_db());
    out["max_error"] = number(errors.max_error);
    out["cosine"] = number(errors.cosine());
    out["rms"] = number(errors.rms());
    out["max_value"] = number(errors.max_a);
    if (errors.zeroed > 0) out["zeroed"] = errors.zeroed;
    if (errors.non_finite > 0) out["non_finite"] = errors.non_finite;
  }
  add_text(out, "optimizer", layer.optimizer);
  if (layer.objective_ratio) out["objective_ratio"] = number(*layer.objective_ratio);
  if (layer.seconds > 0) out["seconds"] = layer.seconds;
  add_text(out, "note", layer.note);
  return out;
}

// Bins from the first that is not empty to the last: `starts` has one edge more than there are counts.
ordered_json histogram_json(const ReportLayer& layer) {
  const MeasuredErrors& errors = layer.errors;
  int first = kernel::kMagnitudeBins, last = -1;
  for (int bin = 1; bin < kernel::kMagnitudeBins; ++bin)
    if (errors.values[bin] > 0 || errors.errors[bin] > 0) {
      first = std::min(first, bin);
      last = bin;
    }
  auto starts = ordered_json::array(), values = ordered_json::array(), wrong = ordered_json::array();
  for (int bin = first; bin <= last; ++bin) {
    starts.push_back(bin_start(bin));
    values.push_back(errors.values[bin]);
    wrong.push_back(errors.errors[bin]);
  }
  if (last >= 0) starts.push_back(bin_start(last + 1));
  return {{"layer", layer.name},        {"starts", std::move(starts)},       {"weights", std::move(values)},
          {"errors", std::move(wrong)}, {"weights_below", errors.values[0]}, {"errors_below", errors.errors[0]}};
}

ordered_json findings_json(const Report& report, const Findings& findings) {
  ordered_json out{{"verdict", findings.verdict}, {"standing_out", findings.standing_out}};
  auto& worst = out["worst"] = ordered_json::array();
  for (const WorstLayer& entry : findings.worst) {
    worst.push_back({{"name", report.layers[entry.layer].name},
                     {"relative_error", number(report.layers[entry.layer].errors.relative_error())},
                     {"times_typical", number(entry.ratio)}});
    add_text(worst.back(), "cause", entry.cause);
  }
  auto& mends = out["mends"] = ordered_json::array();
  for (const Mend& mend : findings.mends) mends.push_back({{"option", mend.option}, {"effect", mend.effect}});
  auto& warnings = out["warnings"] = ordered_json::array();
  for (const ReportWarning& warning : findings.warnings) {
    warnings.push_back({{"text", warning.text}});
    add_text(warnings.back(), "mend", warning.mend);
  }
  return out;
}

ordered_json frontier_json(const Frontier& frontier) {
  auto out = ordered_json::array();
  for (const FrontierPoint& point : frontier) {
    auto mix = ordered_json::object();
    for (const auto& [format, layers] : point.mix) mix[format] = layers;
    out.push_back({{"bytes", point.bytes},
                   {"bits_per_weight", point.bits_per_weight},
                   {"cost", number(point.cost)},
                   {"error", number(point.error)},
                   {"mix", std::move(mix)},
                   {"chosen", point.chosen}});
  }
  return out;
}

ordered_json tree(const Report& report, const ReportSummary& summary, const Findings& findings) {
  ordered_json out{{"report", 1}, {"title", report.title}, {"input", report.input}, {"output", report.output}};
  out["made_by"] = report.conversion ? "convert" : "compare";
  out["bytes_in"] = report.bytes_in;
  out["bytes_out"] = report.bytes_out;
  out["bits_per_weight"] = number(report.bits_per_weight);
  out["relative_error"] = number(summary.total.relative_error());
  out["sqnr_db"] = number(summary.total.sqnr_db());
  out["mean_relative_error"] = number(summary.mean_relative_error);
  out["median_relative_error"] = number(summary.median_relative_error);
  out["worst_sqnr_db"] = number(summary.worst_sqnr_db);
  out["measured_layers"] = summary.worst.size();
  out["kept_layers"] = summary.kept;
  out["unmeasured_layers"] = summary.unmeasured;
  out["findings"] = findings_json(report, findings);
  add_text(out, "preset", report.preset);
  add_text(out, "preset_reason", report.preset_reason);
  out["machine"] = {{"cpu", report.cpu}, {"isa", report.isa}, {"threads", report.threads}};
  out["version"] = report.version;
  add_text(out, "made", report.made);
  auto& times = out["times"] = ordered_json::object();
  for (const auto& [what, seconds] : report.times) times[what] = number(seconds);
  if (!report.frontier.empty()) out["frontier"] = frontier_json(report.frontier);
  if (const auto recipe = ordered_json::parse(report.recipe, nullptr, false); recipe.is_object())
    out["recipe"] = recipe;
  add_text(out, "command", report.command);
  out["notes"] = report.notes;
  auto& histograms = out["histograms"] = ordered_json::array();
  for (const size_t layer : summary.drawn) histograms.push_back(histogram_json(report.layers[layer]));
  auto& layers = out["layers"] = ordered_json::array();
  const std::vector<LayerStanding> all = standings(report);
  for (size_t i = 0; i < report.layers.size(); ++i) layers.push_back(layer_json(report.layers[i], all[i]));
  return out;
}

}  // namespace

// Paths may hold anything, also what is not UTF-8.
std::string report_json(const Report& report) {
  return tree(report, summarize(report), find(report)).dump(1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string embedded_json(const PageView& view) {
  std::string text =
      tree(view.report, view.summary, view.findings).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) safe += c == '<' ? std::string("\\u003c") : std::string(1, c);  // no end of the script
  return safe;
}

}  // namespace mezzotint::convert
