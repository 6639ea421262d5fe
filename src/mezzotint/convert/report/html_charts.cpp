#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mezzotint/convert/report/html_parts.h"
#include "mezzotint/convert/report/text.h"

namespace mezzotint::convert {
namespace {

// --- histograms
// -------------------------------------------------------------------------------------------------------
constexpr double kWidth = 360, kHeight = 120, kBottom = 96;
// Weights that a format happens to have, a few in a million, are no news.
constexpr double kWorthSaying = 0.001;

// Octaves around the typical weight that the drawings show.
struct Range {
  double low = 0, high = 0;
  double x(double octave) const { return (std::clamp(octave, low, high) - low) / (high - low) * kWidth; }
};

double octave_of(int bin, double rms) {
  return std::log2(bin_start(bin) / rms);
}

// Share of the elements by octave, for each bin.
std::vector<double> density(const uint64_t* counts, uint64_t elements) {
  std::vector<double> shares(kernel::kMagnitudeBins, 0.0);
  for (int bin = 1; bin + 1 < kernel::kMagnitudeBins; ++bin)
    shares[static_cast<size_t>(bin)] = static_cast<double>(counts[bin]) / static_cast<double>(elements) /
                                       std::log2(bin_start(bin + 1) / bin_start(bin));
  return shares;
}

// The bin below which one in 500 of what is drawn lies.
int first_bin(const uint64_t* counts) {
  uint64_t all = 0, seen = 0;
  for (int bin = 1; bin < kernel::kMagnitudeBins; ++bin) all += counts[bin];
  for (int bin = 1; bin < kernel::kMagnitudeBins; ++bin) {
    seen += counts[bin];
    if (seen > all / 500) return bin;
  }
  return kernel::kMagnitudeBins - 1;
}

// The same for all drawings, so that they can be held against each other.
Range range_of(const PageView& view) {
  Range range;
  for (const size_t index : view.summary.drawn) {
    const MeasuredErrors& errors = view.report.layers[index].errors;
    const double rms = errors.rms();
    if (!(rms > 0)) continue;
    for (const uint64_t* counts : {errors.values, errors.errors})
      range.low = std::min(range.low, octave_of(first_bin(counts), rms));
    range.high = std::max(range.high, std::log2(errors.max_a / rms));
  }
  range.low = std::floor(std::clamp(range.low, -20.0, -4.0)) - 0.5;
  range.high = std::ceil(std::clamp(range.high, 2.0, 16.0)) + 0.5;
  return range;
}

void write_steps(std::string& out, const std::vector<double>& shares, double rms, double top, const Range& range,
                 const char* name) {
  out += fmt::format("<path class=\"{}\" d=\"M0 {:.1f}", name, kBottom);
  for (int bin = 1; bin + 1 < kernel::kMagnitudeBins; ++bin) {
    const double from = octave_of(bin, rms), to = octave_of(bin + 1, rms);
    if (to <= range.low || from >= range.high) continue;
    const double y = kBottom - shares[static_cast<size_t>(bin)] / top * (kBottom - 8);
    out += fmt::format("L{:.1f} {:.1f}L{:.1f} {:.1f}", range.x(from), y, range.x(to), y);
  }
  out += fmt::format("L{:.1f} {:.1f}Z\"/>", kWidth, kBottom);
}

std::string octave_text(int octave) {
  if (octave == 0) return "1";
  return octave < 0 ? fmt::format("1/{}", 1 << -octave) : fmt::format("{}", 1 << octave);
}

void write_histogram(std::string& out, const PageView& view, size_t index, const Range& range, bool typical) {
  const ReportLayer& layer = view.report.layers[index];
  const MeasuredErrors& errors = layer.errors;
  const uint64_t finite = errors.elements - errors.non_finite;
  const double rms = errors.rms();
  if (finite == 0 || !(rms > 0)) return;
  const auto values = density(errors.values, finite), wrong = density(errors.errors, finite);
  const double top =
      std::max(*std::max_element(values.begin(), values.end()), *std::max_element(wrong.begin(), wrong.end()));
  const double error = errors.relative_error();
  out += fmt::format("<figure{}><figcaption>{}<b>{}</b> <span>error {}</span></figcaption>",
                     typical ? " class=\"typical\"" : "", typical ? "<em>for comparison, a typical layer</em> " : "",
                     escape(layer.name), percent_text(error));
  out += fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Sizes of weights and of errors\">", kWidth,
                     kHeight);
  write_steps(out, values, rms, top, range, "weights");
  write_steps(out, wrong, rms, top, range, "errors");
  const int step = range.high - range.low > 14 ? 4 : 2;
  const int first = static_cast<int>(std::ceil(range.low / step)) * step;
  for (int octave = first; octave <= range.high; octave += step) {
    if (range.x(octave) < 16 || range.x(octave) > kWidth - 12) continue;
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>", range.x(octave), kHeight - 8,
                       octave_text(octave));
  }
  out += fmt::format("<line class=\"axis\" x1=\"0\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>", kWidth, kBottom, kBottom);
  const double at = range.x(std::log2(error));
  out += fmt::format("<line class=\"mark\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"4\" y2=\"{}\"/>", at, at, kBottom);
  const double zeroed = static_cast<double>(errors.zeroed) / static_cast<double>(finite);
  const double unchanged = static_cast<double>(errors.errors[0]) / static_cast<double>(finite);
  out +=
      fmt::format("</svg><p>largest weight {:.3g} &times; typical; {} became zero{}</p></figure>\n", errors.max_a / rms,
                  percent_text(zeroed), unchanged >= kWorthSaying ? "; " + percent_text(unchanged) + " unchanged" : "");
}

// --- frontier
// ---------------------------------------------------------------------------------------------------------
constexpr double kPlotWidth = 640, kPlotHeight = 240, kLeft = 56, kRight = 24, kTop = 16, kFoot = 32;

struct Axis {
  double low, high, from, to;
  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

std::string mix_text(const FrontierPoint& point) {
  std::string text;
  for (const auto& [format, layers] : point.mix)
    text += fmt::format("{}{} &times; {}", text.empty() ? "" : ", ", layers, escape(format));
  return text;
}

}  // namespace

void write_histograms(std::string& out, const PageView& view) {
  const auto& drawn = view.summary.drawn;
  if (drawn.empty()) return;
  const Range range = range_of(view);
  const bool with_typical = drawn.size() > 1 && drawn.back() == view.summary.worst[view.summary.worst.size() / 2] &&
                            drawn.size() < view.summary.worst.size();
  out += "<section id=\"histograms\"><h2>Weights and errors of the worst layers</h2>\n";
  out +=
      "<p class=\"legend\"><b class=\"weights\"></b> how many weights have which size <b class=\"errors\"></b> how "
      "many "
      "errors do. 1 is the size of a typical weight of the layer (root mean square), the dashed line that of its "
      "typical error: the further left, the better.</p><div class=\"figures\">\n";
  for (size_t i = 0; i < drawn.size(); ++i)
    write_histogram(out, view, drawn[i], range, with_typical && i + 1 == drawn.size());
  out += "</div></section>\n";
}

void write_frontier(std::string& out, const PageView& view) {
  const Frontier& frontier = view.report.frontier;
  if (frontier.empty()) return;
  const auto [small, large] = std::minmax_element(frontier.begin(), frontier.end(),
                                                  [](const auto& a, const auto& b) { return a.bytes < b.bytes; });
  double worst = 0;
  for (const auto& point : frontier) worst = std::max(worst, point.error);
  const auto span = static_cast<double>(large->bytes - small->bytes);
  const Axis x{static_cast<double>(small->bytes) - std::max(span, 1.0) * 0.05,
               static_cast<double>(large->bytes) + std::max(span, 1.0) * 0.05, kLeft, kPlotWidth - kRight};
  const Axis y{0, worst > 0 ? worst * 1.1 : 1, kPlotHeight - kFoot, kTop};
  out += "<section id=\"frontier\"><h2>Size against error: what else could be had</h2>\n";
  out += fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Estimated error by size of the file\">",
                     kPlotWidth, kPlotHeight);
  out += fmt::format("<path class=\"axis\" d=\"M{0} {1}V{2}H{3}\"/>", kLeft, kTop, kPlotHeight - kFoot,
                     kPlotWidth - kRight);
  for (int tick = 0; tick <= 2; ++tick) {
    const double value = worst * tick / 2;
    out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", kLeft - 6, y.at(value) + 4,
                       percent_text(value));
  }
  out += "<path class=\"line\" d=\"";
  for (size_t i = 0; i < frontier.size(); ++i)
    out += fmt::format("{}{:.1f} {:.1f}", i == 0 ? 'M' : 'L', x.at(static_cast<double>(frontier[i].bytes)),
                       y.at(frontier[i].error));
  out += "\"/>";
  double labelled = -1000;
  for (const auto& point : frontier) {
    const double px = x.at(static_cast<double>(point.bytes)), py = y.at(point.error);
    out += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>", point.chosen ? "chosen" : "point",
                       px, py, point.chosen ? 7 : 5);
    if (px - labelled > 64) {
      labelled = px;
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", px, kPlotHeight - 12,
                         size_text(point.bytes));
    }
    if (point.chosen)
      out += fmt::format("<text class=\"here\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"start\">this file</text>",
                         px + 11, py - 7);
  }
  out +=
      "</svg>\n<table class=\"plain\"><thead><tr><th>size</th><th>bits per weight</th><th>estimated error</th>"
      "<th class=\"wide\">layers</th><th>option</th></tr></thead><tbody>\n";
  for (const auto& point : frontier)
    out += fmt::format(
        "<tr{}><td>{}</td><td>{:.2f}</td><td>{}</td><td class=\"wide\">{}</td><td><code>--target-size "
        "{}</code></td></tr>\n",
        point.chosen ? " class=\"chosen\"" : "", size_text(point.bytes), point.bits_per_weight,
        percent_text(point.error), mix_text(point), point.bytes);
  out += "</tbody></table></section>\n";
}

}  // namespace mezzotint::convert
