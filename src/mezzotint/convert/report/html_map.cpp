#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "mezzotint/convert/report/blocks.h"
#include "mezzotint/convert/report/html_parts.h"
#include "mezzotint/convert/report/text.h"

namespace mezzotint::convert {
namespace {

constexpr int kShades = 9;
// The darkest shade is never less than this many times the lightest: errors that are alike look alike.
constexpr double kLeastRange = 4;

// Number of the color of each format (page.css): q0.. up to 5 bits, q3.. up to 12 bits, p0.. above.
class FormatColors {
 public:
  explicit FormatColors(const std::vector<ReportLayer>& layers) {
    struct Use {
      uint64_t bytes = 0, elements = 0;
    };
    std::map<std::string, Use, std::less<>> uses;
    for (const ReportLayer& layer : layers) {
      Use& use = uses[layer.to];
      use.bytes += layer.bytes_out;
      use.elements += element_count(layer.shape).value_or(0);
    }
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [format, use] : uses) {
      bytes_[format] = use.bytes;
      const double bits =
          use.elements > 0 ? 8.0 * static_cast<double>(use.bytes) / static_cast<double>(use.elements) : 99;
      order.emplace_back(bits, format);
    }
    std::sort(order.begin(), order.end());
    int small = 0, middle = 0, plain = 0;
    for (const auto& [bits, format] : order) {
      std::string color = bits < 6    ? fmt::format("q{}", small++ % 3)
                          : bits < 12 ? fmt::format("q{}", 3 + middle++ % 4)
                                      : fmt::format("p{}", plain++ % 3);
      legend_.emplace_back(format, color);
      colors_.emplace(format, std::move(color));
    }
  }
  const std::string& of(const ReportLayer& layer) const { return colors_.find(layer.to)->second; }
  const std::vector<std::pair<std::string, std::string>>& legend() const { return legend_; }
  uint64_t bytes(const std::string& format) const { return bytes_.find(format)->second; }

 private:
  std::map<std::string, std::string, std::less<>> colors_;
  std::map<std::string, uint64_t, std::less<>> bytes_;
  std::vector<std::pair<std::string, std::string>> legend_;
};

class ErrorShades {
 public:
  ErrorShades(const Report& report, const ReportSummary& summary) {
    for (const size_t i : summary.worst) {
      const double error = report.layers[i].errors.relative_error();
      if (!(error > 0) || !std::isfinite(error)) continue;
      low_ = low_ > 0 ? std::min(low_, error) : error;
      high_ = std::max(high_, error);
    }
    high_ = std::max(high_, kLeastRange * low_);
  }
  bool any() const { return low_ > 0; }
  std::string of(const ReportLayer& layer) const {
    if (layer.fate != Fate::measured) return "ex";
    const double error = layer.errors.relative_error();
    if (!(error > 0)) return "e0";
    if (!std::isfinite(error)) return fmt::format("e{}", kShades - 1);
    const double place = std::log(error / low_) / std::log(high_ / low_);
    return fmt::format("e{}", std::clamp(static_cast<int>(place * kShades), 0, kShades - 1));
  }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  double low_ = 0, high_ = 0;
};

class MapWriter {
 public:
  MapWriter(std::string& out, const PageView& view)
      : out_(out), view_(view), colors_(view.report.layers), shades_(view.report, view.summary) {}

  void run() {
    const BlockMap map = block_map(view_.report.layers);
    out_ += "<section id=\"map\"><h2>The model, block by block</h2>\n";
    out_ += "<input type=\"radio\" name=\"view\" id=\"by-error\" checked><label for=\"by-error\">Error</label>";
    out_ += "<input type=\"radio\" name=\"view\" id=\"by-format\"><label for=\"by-format\">Format</label>\n";
    out_ += "<div class=\"maps\">";
    legends();
    for (const BlockGrid& grid : map.grids) write(grid);
    if (!map.outside.empty()) outside(map.outside, map.grids.empty());
    out_ += "</div></section>\n";
  }

 private:
  std::string classes(size_t layer) const {
    const ReportLayer& entry = view_.report.layers[layer];
    std::string text = colors_.of(entry) + " " + shades_.of(entry);
    for (size_t i = 0; i < view_.findings.worst.size(); ++i)
      if (view_.findings.worst[i].layer == layer) text += fmt::format(" w w{}", i + 1);
    return text;
  }

  void legends() {
    out_ += "<p class=\"legend in-error\">";
    if (shades_.any()) {
      out_ += percent_text(shades_.low()) + " <span class=\"ramp\">";
      for (int shade = 0; shade < kShades; ++shade) out_ += fmt::format("<b class=\"e{}\"></b>", shade);
      out_ += fmt::format("</span> {} of a typical weight; ", percent_text(shades_.high()));
    }
    out_ += "<b class=\"ex\"></b> not changed";
    if (!view_.findings.worst.empty())
      out_ += fmt::format("; numbered: the {} worst",
                          view_.findings.worst.size() == 3 ? "three" : std::to_string(view_.findings.worst.size()));
    out_ += "</p><p class=\"legend in-format\">";
    for (const auto& [format, color] : colors_.legend())
      out_ += fmt::format("<span><b class=\"{}\"></b> {} <small>{}</small></span> ", color, escape(format),
                          size_text(colors_.bytes(format)));
    out_ += "</p>\n";
  }

  void write(const BlockGrid& grid) {
    const size_t step = grid.blocks.size() > 12 ? 5 : 1;
    out_ += fmt::format("<table class=\"grid\" style=\"--n:{}\"><caption>{}</caption><thead><tr><th></th>",
                        grid.blocks.size(), grid.stack.empty() ? "blocks" : escape(grid.stack));
    for (size_t block = 0; block < grid.blocks.size(); ++block)
      out_ +=
          block % step == 0 ? fmt::format("<th scope=\"col\"><span>{}</span></th>", grid.blocks[block]) : "<th></th>";
    out_ += "</tr></thead><tbody>\n";
    for (size_t type = 0; type < grid.types.size(); ++type) {
      const std::string label = grid.types[type].empty() ? "(itself)" : escape(grid.types[type]);
      out_ += fmt::format("<tr><th scope=\"row\" title=\"{}\">{}</th>", label, label);
      for (const size_t layer : grid.cells[type])
        out_ += layer == BlockGrid::kNone ? std::string("<td></td>")
                                          : fmt::format("<td class=\"{}\" data-i=\"{}\"></td>", classes(layer), layer);
      out_ += "</tr>\n";
    }
    out_ += "</tbody></table>\n";
  }

  void outside(const std::vector<size_t>& layers, bool alone) {
    constexpr size_t kMost = 60;
    if (!alone) out_ += "<p class=\"caption\">outside the blocks</p>";
    out_ += "<p class=\"chips\">";
    for (size_t i = 0; i < std::min(kMost, layers.size()); ++i)
      out_ += fmt::format("<span class=\"chip\"><b class=\"{}\" data-i=\"{}\"></b> {}</span> ", classes(layers[i]),
                          layers[i], escape(view_.report.layers[layers[i]].name));
    if (layers.size() > kMost) out_ += fmt::format("and {} more", layers.size() - kMost);
    out_ += "</p>\n";
  }

  std::string& out_;
  const PageView& view_;
  const FormatColors colors_;
  const ErrorShades shades_;
};

}  // namespace

void write_map(std::string& out, const PageView& view) {
  if (!view.report.layers.empty()) MapWriter(out, view).run();
}

}  // namespace mezzotint::convert
