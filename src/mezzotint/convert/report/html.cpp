#include <fmt/format.h>

#include <cmath>

#include "mezzotint/convert/report/html_parts.h"
#include "mezzotint/convert/report/text.h"

namespace mezzotint::convert {
namespace {

// Characters that fit into a line on every screen.
constexpr size_t kOneLine = 28;

void write_code(std::string& out, const std::string& text) {
  out += fmt::format(
      "<span class=\"type\"><code{1}>{0}</code><button type=\"button\" class=\"copy\" data-copy=\"{0}\">copy</button>"
      "</span>",
      escape(text), text.size() <= kOneLine ? " class=\"line\"" : "");
}

void write_figure(std::string& out, const char* title, const std::string& value, const std::string& more) {
  out += fmt::format("<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>\n", title, value, more);
}

void write_figures(std::string& out, const PageView& view) {
  const Report& report = view.report;
  const ReportSummary& summary = view.summary;
  out += "<dl class=\"figures\">\n";
  std::string share;
  if (report.bytes_in > 0 && report.bytes_out > 0) {
    const double ratio = static_cast<double>(report.bytes_out) / static_cast<double>(report.bytes_in);
    share = fmt::format("{} of before, {:.2f} times smaller", percent_text(ratio), 1 / ratio);
    if (ratio >= 1) share = fmt::format("{} of before", percent_text(ratio));
  }
  write_figure(out, "Size", fmt::format("{} &rarr; {}", size_text(report.bytes_in), size_text(report.bytes_out)),
               share);
  write_figure(out, "Bits per weight", fmt::format("{:.2f}", report.bits_per_weight), "scales included");
  if (!summary.worst.empty()) {
    write_figure(out, "Error of the weights", percent_text(summary.total.relative_error()),
                 fmt::format("half of the layers below {}", percent_text(summary.median_relative_error)));
    write_figure(out, "Signal to noise", decibel_text(summary.total.sqnr_db()),
                 fmt::format("worst layer {}", decibel_text(summary.worst_sqnr_db)));
  }
  out += "</dl>\n";
}

void write_worst(std::string& out, const PageView& view) {
  const Findings& findings = view.findings;
  out += fmt::format("<section id=\"worst\"{}>", findings.standing_out == 0 ? " class=\"calm\"" : "");
  if (findings.worst.empty()) {
    out += fmt::format("<h2>{}</h2></section>\n", escape(findings.verdict));
    return;
  }
  const size_t count = findings.worst.size();
  out += fmt::format("<h2>{}</h2><p>{}</p>\n<ol>\n",
                     count == 1   ? "The worst layer"
                     : count == 2 ? "The two worst layers"
                                  : "The three worst layers",
                     escape(findings.verdict));
  const double largest = view.report.layers[findings.worst.front().layer].errors.relative_error();
  for (const WorstLayer& entry : findings.worst) {
    const ReportLayer& layer = view.report.layers[entry.layer];
    const double error = layer.errors.relative_error();
    const double width = std::isfinite(error / largest) ? 100 * error / largest : 100;
    const double typical = view.standings[entry.layer].typical;
    out += fmt::format("<li><b class=\"name\">{}</b> <span class=\"amount\">error {}</span> ", escape(layer.name),
                       percent_text(error));
    if (typical > 0 && std::isfinite(entry.ratio))
      out +=
          fmt::format("<span class=\"times\">{:.3g} times the typical {}</span>", entry.ratio, percent_text(typical));
    out += fmt::format("<i style=\"width:{:.1f}%\"></i>", width);
    if (!entry.cause.empty()) out += fmt::format("<p>{}</p>", escape(entry.cause));
    out += "</li>\n";
  }
  out += "</ol>\n";
  if (!findings.mends.empty()) {
    out += fmt::format("<div class=\"mend\"><h3>{}</h3>\n<ul>\n",
                       findings.standing_out == 0   ? "What lowers all errors: any of these options"
                       : findings.mends.size() == 1 ? "What mends it"
                                                    : "What mends it: any of these options");
    for (const Mend& mend : findings.mends) {
      out += "<li>";
      write_code(out, mend.option);
      out += fmt::format(" <span>{}.</span></li>\n", escape(mend.effect));
    }
    out += "</ul>\n";
    if (!view.report.command.empty()) {
      const std::string command = view.report.command + " --force " + findings.mends.front().option;
      out += "<details><summary>The whole command with the first of them</summary><p>";
      write_code(out, command);
      out += "</p></details>";
    } else {
      out += "<p>To be added to the <code>mezzotint convert</code> that makes the file.</p>";
    }
    out += "</div>\n";
  }
  out += "</section>\n";
}

void write_warnings(std::string& out, const PageView& view) {
  if (!view.findings.warnings.empty()) {
    out += "<section id=\"warnings\"><h2>Warnings</h2><ul>\n";
    for (const ReportWarning& warning : view.findings.warnings) {
      out += "<li>" + escape_with_code(warning.text);
      if (!warning.mend.empty()) {
        out += " <span class=\"fix\">Mend: ";
        write_code(out, warning.mend);
        out += "</span>";
      }
      out += "</li>\n";
    }
    out += "</ul></section>\n";
  }
  if (!view.report.notes.empty()) {
    out += "<section id=\"notes\"><h2>Good to know</h2><ul>\n";
    for (const std::string& note : view.report.notes) out += fmt::format("<li>{}</li>\n", escape_with_code(note));
    out += "</ul></section>\n";
  }
}

void write_row(std::string& out, const char* title, const std::string& html) {
  if (!html.empty()) out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", title, html);
}

void write_making(std::string& out, const PageView& view) {
  const Report& report = view.report;
  out += "<section id=\"making\"><h2>How it was made</h2>\n<dl class=\"facts\">\n";
  write_row(out, report.conversion ? "from" : "first file", escape(report.input));
  write_row(out, report.conversion ? "to" : "second file", escape(report.output));
  std::string preset = escape(report.preset);
  if (!report.preset_reason.empty()) preset += fmt::format(" <small>{}</small>", escape(report.preset_reason));
  write_row(out, "architecture", preset);
  const ReportSummary& summary = view.summary;
  std::string layers = fmt::format("{} changed and measured, {} kept as they were", summary.worst.size(), summary.kept);
  if (summary.unmeasured > 0) layers += fmt::format(", {} not measured", summary.unmeasured);
  write_row(out, "layers", layers);
  for (const auto& [what, seconds] : report.times) {
    std::string text = duration_text(seconds);
    if (&what == &report.times.front().first && seconds > 0 && report.bytes_in > 0)
      text +=
          fmt::format(" <small>{:.0f} MB/s of the input</small>", static_cast<double>(report.bytes_in) / 1e6 / seconds);
    write_row(out, escape(what).c_str(), text);
  }
  std::string machine = escape(report.cpu.empty() ? "CPU" : report.cpu);
  if (!report.isa.empty()) machine += ", " + escape(report.isa);
  if (report.threads > 0) machine += fmt::format(", {} thread{}", report.threads, report.threads == 1 ? "" : "s");
  write_row(out, "machine", machine);
  write_row(out, "program", report.version.empty() ? "" : "Mezzotint " + escape(report.version));
  write_row(out, "date", escape(report.made));
  out += "</dl>\n";
  if (!report.command.empty()) {
    out += "<h3>The command that makes this file again</h3><p>";
    write_code(out, report.command);
    out += "</p>\n";
  }
  if (!report.recipe.empty())
    out += fmt::format("<details><summary>Recipe</summary><pre>{}</pre></details>\n", escape(report.recipe));
  out +=
      "<p class=\"fine\">Errors say how far the stored weights are from what they were; they do not say how pictures "
      "look. Error of a layer: root mean square of the differences / root mean square of the weights. Signal to noise: "
      "the same in decibels, 20 dB for every factor of ten.</p></section>\n";
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if ((c >= 0 && c < 32 && c != '\n' && c != '\t') || c == 127)
          out += "&#xFFFD;";
        else
          out += c;
    }
  return out;
}

std::string escape_with_code(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t open = text.find('`');
    const size_t close = open == std::string_view::npos ? open : text.find('`', open + 1);
    if (close == std::string_view::npos) break;
    out += escape(text.substr(0, open));
    out += "<code>" + escape(text.substr(open + 1, close - open - 1)) + "</code>";
    text.remove_prefix(close + 1);
  }
  return out + escape(text);
}

std::string report_html(const Report& report) {
  const PageView view{report, summarize(report), find(report), standings(report)};
  std::string out = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n";
  out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  out += "<meta name=\"color-scheme\" content=\"light dark\">\n";
  out += fmt::format("<title>{}</title>\n<style>\n{}</style></head><body><main>\n", escape(report.title), kPageStyle);
  out += fmt::format("<header><h1>{}</h1><p>{}</p></header>\n", escape(report.title),
                     report.conversion ? "What the conversion did to every weight."
                                       : "How far the weights of the second file are from those of the first.");
  write_figures(out, view);
  write_worst(out, view);
  write_warnings(out, view);
  write_map(out, view);
  write_table(out, view);
  write_histograms(out, view);
  write_frontier(out, view);
  write_making(out, view);
  out += "</main>\n<script type=\"application/json\" id=\"report\">" + embedded_json(view) + "</script>\n";
  out += fmt::format("<script>\n{}</script>\n</body></html>\n", kPageScript);
  return out;
}

}  // namespace mezzotint::convert
