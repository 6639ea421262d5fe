#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mezzotint/convert/report/html_parts.h"
#include "mezzotint/convert/report/text.h"

namespace mezzotint::convert {
namespace {

// What the script sorts by; `wide` columns are left out on narrow screens.
struct Column {
  const char* key;
  const char* title;
  bool number;
  bool wide;
};
constexpr Column kColumns[] = {
    {"name", "layer", false, false},          {"to", "stored as", false, true},
    {"relative_error", "error", true, false}, {"times_typical", "&times; typical", true, true},
    {"sqnr_db", "SQNR", true, false},         {"max_error", "largest error", true, true},
    {"bytes_out", "size", true, true},        {"optimizer", "rounding", false, true},
    {"seconds", "time", true, true},
};

std::string stored_as(const ReportLayer& layer) {
  if (layer.fate == Fate::kept || layer.from == layer.to) return escape(layer.to.empty() ? layer.from : layer.to);
  return fmt::format("<small>{} &rarr;</small> {}", escape(layer.from), escape(layer.to));
}

std::string rounding(const ReportLayer& layer) {
  if (!layer.objective_ratio) return escape(layer.optimizer);
  return fmt::format("{} <small>&times; {:.2f}</small>", escape(layer.optimizer), *layer.objective_ratio);
}

}  // namespace

// The script's row() writes the same cells: change both.
void write_table(std::string& out, const PageView& view) {
  const Report& report = view.report;
  double largest = 0;
  for (const size_t i : view.summary.worst) {
    const double error = report.layers[i].errors.relative_error();
    if (std::isfinite(error)) largest = std::max(largest, error);
  }
  bool has_optimizer = false, has_time = false;
  for (const ReportLayer& layer : report.layers) {
    has_optimizer |= !layer.optimizer.empty();
    has_time |= layer.seconds > 0;
  }
  const auto shown = [&](const Column& column) {
    if (std::string_view(column.key) == "optimizer") return has_optimizer;
    return std::string_view(column.key) != "seconds" || has_time;
  };

  out += "<section id=\"layers\"><h2>Every layer, worst first</h2>\n";
  out +=
      "<p class=\"tools\"><label>Show layers with <input type=\"search\" id=\"filter\" placeholder=\"part of a name or "
      "format\"></label> <label><input type=\"checkbox\" id=\"kept\"> also those that stayed as they were</label> "
      "<span id=\"count\" role=\"status\"></span></p>\n";
  out += "<table id=\"table\"><thead><tr>";
  for (const Column& column : kColumns) {
    if (!shown(column)) continue;
    const bool sorted = std::string_view(column.key) == "relative_error";
    out += fmt::format("<th scope=\"col\" class=\"{}{}\" data-key=\"{}\"{}><button type=\"button\">{}</button></th>",
                       column.number ? "n" : "t", column.wide ? " wide" : "", column.key,
                       sorted ? " aria-sort=\"descending\"" : "", column.title);
  }
  out += "</tr></thead><tbody>\n";
  for (size_t i = 0; i < std::min(kStaticRows, view.summary.worst.size()); ++i) {
    const size_t index = view.summary.worst[i];
    const ReportLayer& layer = report.layers[index];
    const double error = layer.errors.relative_error();
    const LayerStanding& standing = view.standings[index];
    const double ratio = standing.typical > 0 ? error / standing.typical : 0;
    out += fmt::format("<tr{}><th scope=\"row\">{}</th><td class=\"t wide\">{}</td>",
                       standing.stands_out ? " class=\"bad\"" : "", escape(layer.name), stored_as(layer));
    out += fmt::format("<td class=\"n\"><i style=\"width:{:.1f}%\"></i>{}</td>",
                       largest > 0 ? 100 * std::min(error / largest, 1.0) : 0.0, percent_text(error));
    out += fmt::format("<td class=\"n wide\">{}</td><td class=\"n\">{}</td>",
                       ratio > 0 ? fmt::format("{:.2f}", ratio) : "", decibel_text(layer.errors.sqnr_db()));
    out += fmt::format("<td class=\"n wide\">{:.3g}</td><td class=\"n wide\">{}</td>", layer.errors.max_error,
                       size_text(layer.bytes_out));
    if (has_optimizer) out += fmt::format("<td class=\"t wide\">{}</td>", rounding(layer));
    if (has_time) out += fmt::format("<td class=\"n wide\">{:.2f} s</td>", layer.seconds);
    out += "</tr>\n";
  }
  out += "</tbody></table>\n<p><button type=\"button\" id=\"more\" hidden>Show all</button></p></section>\n";
}

}  // namespace mezzotint::convert
