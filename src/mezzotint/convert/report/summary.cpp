#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "mezzotint/convert/report/report.h"

namespace mezzotint::convert {
namespace {

// Fewer layers of one format say nothing about what is typical of it.
constexpr size_t kEnoughAlike = 4;

// Worst layers that are drawn.
constexpr size_t kDrawn = 5;
constexpr double kLeastRatio = 1.5, kDeviations = 3;

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle), values.end());
  if (values.size() % 2 == 1) return values[middle];
  const double upper = values[middle];
  const double lower = *std::max_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(middle));
  return std::isfinite(upper) ? (lower + upper) / 2 : lower;
}

// What is usual among layers that are alike.
struct Crowd {
  double typical = 0, limit = 0;

  explicit Crowd(const std::vector<double>& errors) : typical(median(errors)) {
    std::vector<double> distances;
    for (const double error : errors)
      if (error > 0 && typical > 0 && std::isfinite(error)) distances.push_back(std::abs(std::log(error / typical)));
    // 1.4826 times that median is the standard deviation of a normal distribution.
    limit = typical * std::exp(std::max(std::log(kLeastRatio), kDeviations * 1.4826 * median(std::move(distances))));
  }
};

}  // namespace

std::string_view name(Fate fate) {
  constexpr std::string_view names[] = {"kept", "measured", "unmeasured"};
  return names[static_cast<size_t>(fate)];
}

ReportSummary summarize(const Report& report) {
  ReportSummary summary;
  summary.worst_sqnr_db = std::numeric_limits<double>::infinity();
  std::vector<double> errors;
  for (size_t i = 0; i < report.layers.size(); ++i) {
    const ReportLayer& layer = report.layers[i];
    if (layer.fate != Fate::measured) {
      ++(layer.fate == Fate::kept ? summary.kept : summary.unmeasured);
      continue;
    }
    summary.worst.push_back(i);
    summary.total.add(layer.errors);
    summary.worst_sqnr_db = std::min(summary.worst_sqnr_db, layer.errors.sqnr_db());
    if (std::isfinite(layer.errors.relative_error())) errors.push_back(layer.errors.relative_error());
  }
  for (const double error : errors) summary.mean_relative_error += error / static_cast<double>(errors.size());
  summary.median_relative_error = median(std::move(errors));
  std::stable_sort(summary.worst.begin(), summary.worst.end(), [&](size_t a, size_t b) {
    return report.layers[a].errors.relative_error() > report.layers[b].errors.relative_error();
  });
  for (size_t i = 0; i < std::min(kDrawn, summary.worst.size()); ++i)
    if (report.layers[summary.worst[i]].errors.e2 > 0) summary.drawn.push_back(summary.worst[i]);
  const size_t middle = summary.worst.size() / 2;
  if (middle >= kDrawn && report.layers[summary.worst[middle]].errors.e2 > 0)
    summary.drawn.push_back(summary.worst[middle]);
  return summary;
}

std::vector<LayerStanding> standings(const Report& report) {
  std::vector<double> all;
  std::map<std::string, std::vector<double>, std::less<>> by_format;
  for (const ReportLayer& layer : report.layers) {
    if (layer.fate != Fate::measured) continue;
    all.push_back(layer.errors.relative_error());
    by_format[layer.to].push_back(all.back());
  }
  const Crowd whole(all);
  std::map<std::string, Crowd, std::less<>> crowds;
  for (const auto& [format, errors] : by_format)
    crowds.emplace(format, errors.size() >= kEnoughAlike ? Crowd(errors) : whole);
  std::vector<LayerStanding> result(report.layers.size());
  for (size_t i = 0; i < result.size(); ++i) {
    const ReportLayer& layer = report.layers[i];
    if (layer.fate != Fate::measured) continue;
    const Crowd& crowd = crowds.find(layer.to)->second;
    result[i] = {crowd.typical, layer.errors.relative_error() > 0 && layer.errors.relative_error() >= crowd.limit};
  }
  return result;
}

}  // namespace mezzotint::convert
