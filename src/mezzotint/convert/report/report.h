#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/base/dtype.h"
#include "mezzotint/convert/budget/frontier.h"
#include "mezzotint/convert/report/meter.h"

/// What a conversion did to every weight, for people: one HTML file that needs nothing else, and the same numbers as
/// JSON.
///
/// make_report.h fills a Report from a conversion or a comparison; a caller adds what only it knows (command, CPU,
/// date, frontier). findings.h derives the sentences and the options that mend what is wrong.
namespace mezzotint::convert {

/// What happened to a layer.
enum class Fate : uint8_t {
  kept,        ///< the same bytes or the same codes as before
  measured,    ///< stored in another way; `errors` says how far that is from before
  unmeasured,  ///< stored in another way, and nobody looked (an earlier, interrupted run wrote it)
};
std::string_view name(Fate fate);

struct ReportLayer {
  std::string name;  ///< full name, of a weight without ".weight"
  Fate fate = Fate::kept;
  std::string from, to;  ///< format label or dtype
  Shape shape;
  uint64_t bytes_in = 0, bytes_out = 0;   ///< with parameters
  MeasuredErrors errors;                  ///< where measured
  std::string optimizer;                  ///< "" = not known
  std::optional<double> objective_ratio;  ///< objective after the optimizer / of plain rounding
  std::string note;                       ///< why, one clause
  double seconds = 0;                     ///< 0 = not known
};

struct ReportWarning {
  std::string text;  ///< plain words; what stands between backticks is for typing
  std::string mend;  ///< options or a command, "" = `text` says it
};

struct Report {
  std::string title;
  std::string input, output;
  bool conversion = true;  ///< false: two files were compared, and how `output` was made is not known
  uint64_t bytes_in = 0, bytes_out = 0;
  double bits_per_weight = 0;
  std::string preset, preset_reason;  ///< "" = not known
  std::string version, made;          ///< of the program; date and time, "" = not said
  std::string cpu, isa;
  int threads = 0;                                    ///< 0 = not known
  std::vector<std::pair<std::string, double>> times;  ///< what, seconds
  std::vector<ReportLayer> layers;                    ///< weights, and whatever else changed, in the order of the file
  Frontier frontier;                                  ///< empty without a size budget
  std::string recipe;                                 ///< JSON, "" = none
  std::string command;  ///< what makes the output again; options can be added at its end. "" = not known
  std::optional<int> effort;
  bool calibrated = false;
  std::vector<std::string> notes;
  std::vector<ReportWarning> warnings;
};

/// Totals and order, derived once for both forms of the report.
struct ReportSummary {
  MeasuredErrors total;            ///< of all measured layers
  double mean_relative_error = 0;  ///< over measured layers with a finite one
  double median_relative_error = 0;
  double worst_sqnr_db = 0;   ///< +inf without measured layers
  std::vector<size_t> worst;  ///< measured layers, largest relative error first
  std::vector<size_t> drawn;  ///< layers whose histograms are shown: the worst ones, then a typical one
  size_t kept = 0, unmeasured = 0;
};
ReportSummary summarize(const Report& report);

/// What a layer's error is held against: the measured layers in the same format, where these are at least four, else
/// all.
struct LayerStanding {
  double typical = 0;  ///< median of their relative errors; 0 for layers that were not measured
  /// Whether its own is so far above that it does not belong to them: 1.5 times the median and 3 standard deviations
  /// of their logarithms (robust: from the median of the distances to the median) or more.
  bool stands_out = false;
};
std::vector<LayerStanding> standings(const Report& report);

/// One file: CSS, script and drawings are in it, nothing is fetched, and without its script it still shows everything
/// but the rows of the table behind the first hundred. About 300 bytes a layer.
std::string report_html(const Report& report);

/// The same numbers. Infinite ones are null; histograms are given for the layers that the page draws.
std::string report_json(const Report& report);

}  // namespace mezzotint::convert
