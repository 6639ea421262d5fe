#include "mezzotint/convert/report/findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "mezzotint/convert/report/text.h"

namespace mezzotint::convert {
namespace {

constexpr size_t kShown = 3;
// A normal distribution's largest value of a million is about 5 times its standard deviation.
constexpr double kSpike = 30;
constexpr double kManyZeroed = 0.05;
constexpr int kMostEffort = 3;
// Layers that one --exclude can name and stay readable.
constexpr size_t kNamed = 8;

std::string layers_text(size_t count) {
  return count == 1 ? "1 layer" : fmt::format("{} layers", count);
}

// A spike explains an error that is unusual; where all layers have one, it explains nothing.
std::string cause_of(const ReportLayer& layer, bool stands_out) {
  const MeasuredErrors& errors = layer.errors;
  const double rms = errors.rms();
  const auto finite = static_cast<double>(errors.elements - errors.non_finite);
  const double zeroed = finite > 0 ? static_cast<double>(errors.zeroed) / finite : 0;
  const double peak = rms > 0 ? errors.max_a / rms : 0;
  std::string text;
  if (stands_out && peak >= kSpike) text = fmt::format("Its largest weight is {:.0f} times the typical one", peak);
  if (zeroed >= kManyZeroed)
    text += text.empty() ? fmt::format("{} of its weights became zero", percent_text(zeroed))
                         : fmt::format(", and {} of the others became zero", percent_text(zeroed));
  if (errors.non_finite > 0)
    text += fmt::format("{}{} of its values are not finite", text.empty() ? "" : "; ", count_text(errors.non_finite));
  return text.empty() ? text : text + ".";
}

class Finder {
 public:
  explicit Finder(const Report& report) : report_(report), summary_(summarize(report)), standings_(standings(report)) {}

  Findings run() {
    for (const size_t layer : summary_.worst)
      if (stands_out(layer)) outliers_.push_back(layer);
    result_.standing_out = outliers_.size();
    const size_t shown = std::min(kShown, summary_.worst.size());
    for (size_t i = 0; i < shown; ++i) {
      const size_t layer = summary_.worst[i];
      if (error(layer) == 0) break;
      result_.worst.push_back(
          {layer, ratio(layer), stands_out(layer), cause_of(report_.layers[layer], stands_out(layer))});
    }
    result_.verdict = verdict();
    if (!result_.worst.empty()) mends();
    warnings();
    return std::move(result_);
  }

 private:
  double error(size_t layer) const { return report_.layers[layer].errors.relative_error(); }
  double ratio(size_t layer) const {
    return standings_[layer].typical > 0 ? error(layer) / standings_[layer].typical : 1;
  }
  bool stands_out(size_t layer) const { return standings_[layer].stands_out; }

  bool shown(size_t layer) const {
    return std::any_of(result_.worst.begin(), result_.worst.end(), [&](const auto& w) { return w.layer == layer; });
  }

  std::string verdict() const {
    if (summary_.worst.empty()) return "No weight was measured.";
    if (result_.worst.empty()) return "Every weight is exactly what it was.";
    const size_t measured = summary_.worst.size();
    if (outliers_.empty())
      return fmt::format("No layer stands out: the largest error is {:.2f} times the typical one.",
                         result_.worst.front().ratio);
    return fmt::format("{} of {} {} far more than the rest.", outliers_.size(), layers_text(measured),
                       outliers_.size() == 1 ? "loses" : "lose");
  }

  // The errors between which a threshold takes all outliers and nothing else; none where formats are mixed so that
  // there is no such threshold.
  std::optional<std::string> threshold() const {
    double above = INFINITY, below = 0;
    for (const size_t layer : summary_.worst) {
      if (stands_out(layer))
        above = std::min(above, error(layer));
      else
        below = std::max(below, error(layer));
    }
    if (!(below < above)) return std::nullopt;
    const double middle = std::isinf(above) ? 2 * below : std::sqrt(std::max(below, above / 4) * above);
    for (int digits = 2; digits < 17; ++digits) {
      const std::string text = fmt::format("{:.{}g}", middle, digits);
      const double value = std::strtod(text.c_str(), nullptr);
      if (value >= below && value < above) return text;
    }
    return std::nullopt;
  }

  Mend keep(const std::vector<size_t>& layers) const {
    std::vector<std::string> names;
    uint64_t before = 0, after = 0;
    for (const size_t layer : layers) {
      names.push_back(report_.layers[layer].name);
      before += report_.layers[layer].bytes_in;
      after += report_.layers[layer].bytes_out;
    }
    std::string effect = layers.size() == 1   ? "keeps this layer as it was"
                         : layers.size() == 2 ? "keeps these two layers as they were"
                                              : fmt::format("keeps these {} layers as they were", layers.size());
    if (before > after && report_.bytes_out > 0)
      effect += fmt::format(", for {} more ({} of the file)", size_text(before - after),
                            percent_text(static_cast<double>(before - after) / static_cast<double>(report_.bytes_out)));
    return {"--exclude " + shell_word(exact_pattern(names)), effect};
  }

  void mends() {
    if (!outliers_.empty()) {
      if (const auto value = threshold())
        result_.mends.push_back({"--promote-above " + *value,
                                 fmt::format("stores every layer with an error above {} in a finer format: {}",
                                             percent_text(std::strtod(value->c_str(), nullptr)),
                                             outliers_.size() == 1   ? "this one"
                                             : outliers_.size() == 2 ? "these two"
                                             : outliers_.size() == 3 ? "these three"
                                                                     : fmt::format("{} layers, these three among them",
                                                                                   outliers_.size()))});
      std::vector<size_t> named = outliers_;
      if (named.size() > kNamed) named.resize(kShown);
      result_.mends.push_back(keep(named));
    }
    if (outliers_.size() >= kShown) return;
    // The others are like all layers: what mends them mends all.
    if (report_.effort.value_or(0) < kMostEffort) {
      const int more = std::max(2, report_.effort.value_or(0) + 1);
      std::string effect = "rounds so that what the layers put out changes less at the same size, and takes longer";
      if (report_.effort) effect += fmt::format(" (this file: {})", *report_.effort);
      result_.mends.push_back({fmt::format("--effort {}", more), std::move(effect)});
    }
    if (!report_.calibrated)
      result_.mends.push_back(
          {"--calibration FILE", "rounds so that what the layers put out changes least, from recorded activations"});
    if (report_.bytes_out > 0)
      result_.mends.push_back({"--target-size " + larger_size(),
                               "mixes formats and spends a tenth more bytes where they lower the error most"});
  }

  // A tenth more, in a unit that leaves at least three digits.
  std::string larger_size() const {
    const uint64_t bytes = report_.bytes_out / 10 * 11;
    return bytes >= 100'000'000 ? fmt::format("{}MB", bytes / 1'000'000)
           : bytes >= 100'000   ? fmt::format("{}kB", bytes / 1000)
                                : fmt::format("{}", bytes);
  }

  void warn(std::string text, std::string mend) { result_.warnings.push_back({std::move(text), std::move(mend)}); }

  void warnings() {
    result_.warnings = report_.warnings;
    std::vector<size_t> broken, guarded, others;
    for (size_t i = 0; i < report_.layers.size(); ++i) {
      const ReportLayer& layer = report_.layers[i];
      if (layer.fate != Fate::measured) continue;
      if (layer.errors.non_finite > 0) broken.push_back(i);
      if (layer.objective_ratio.value_or(0) >= 1) guarded.push_back(i);
    }
    for (const size_t layer : outliers_)
      if (!shown(layer)) others.push_back(layer);
    if (!broken.empty()) {
      std::vector<size_t> named = broken;
      if (named.size() > kNamed) named.resize(kShown);
      warn(fmt::format("{} {} values that are not finite (infinite or not a number), first {}. They are not part of "
                       "the errors here.",
                       layers_text(broken.size()), broken.size() == 1 ? "has" : "have",
                       report_.layers[broken.front()].name),
           keep(named).option);
    }
    if (summary_.unmeasured > 0)
      warn(fmt::format("{} {} written by an earlier, interrupted run and not measured.",
                       layers_text(summary_.unmeasured), summary_.unmeasured == 1 ? "was" : "were"),
           fmt::format("mezzotint compare {} {} --html report.html", shell_word(report_.input),
                       shell_word(report_.output)));
    if (!guarded.empty())
      warn(fmt::format("For {} the optimizer found nothing better than plain rounding, which stayed.",
                       layers_text(guarded.size())),
           report_.calibrated ? "" : "--calibration FILE");
    if (report_.effort && *report_.effort == 0 && !summary_.worst.empty())
      warn("Every weight went to its nearest code, without regard to the others.", "--effort 2");
    if (!others.empty()) {
      const auto value = threshold();
      const size_t all = others.size(), more = all - std::min(all, kShown);
      if (others.size() > kShown) others.resize(kShown);
      std::string names;
      for (size_t i = 0; i < others.size(); ++i) names += (names.empty() ? "" : ", ") + report_.layers[others[i]].name;
      warn(fmt::format("Also {} {} far more than others in the same format: {}{}.", layers_text(all),
                       all == 1 ? "loses" : "lose", names, more > 0 ? fmt::format(" and {} others", more) : ""),
           value ? "--promote-above " + *value : keep(others).option);
    }
  }

  const Report& report_;
  const ReportSummary summary_;
  const std::vector<LayerStanding> standings_;
  std::vector<size_t> outliers_;
  Findings result_;
};

}  // namespace

Findings find(const Report& report) {
  return Finder(report).run();
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) return std::string(text);
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

std::string exact_pattern(const std::vector<std::string>& names) {
  std::string alternatives;
  for (const std::string& name : names) {
    if (!alternatives.empty()) alternatives += '|';
    for (const char c : name) {
      if (std::string_view(R"(\^$.|?*+()[]{})").find(c) != std::string_view::npos) alternatives += '\\';
      alternatives += c;
    }
  }
  return names.size() == 1 ? "^" + alternatives + "$" : "^(?:" + alternatives + ")$";
}

}  // namespace mezzotint::convert
