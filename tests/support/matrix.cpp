#include "support/matrix.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

namespace mezzotint::test {
namespace {

/// What the document says of a cell.
struct Stated {
  bool measured = false;
  std::set<std::string> reasons;
  bool operator==(const Stated&) const = default;
};

void PrintTo(const Stated& stated, std::ostream* out) {
  *out << (stated.measured ? "measured" : "not measured");
  for (const std::string& reason : stated.reasons) *out << "; left out: " << reason;
}

/// By mode, kind, format and algorithm.
using Document = std::map<std::vector<std::string>, Stated>;

std::vector<std::string> found(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> all;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) all.push_back((*at)[1]);
  return all;
}

Document read_document() {
  static const std::regex quoted("`([^`]+)`"), mark("\\(([0-9]+)\\)"), figure("([0-9]+\\.[0-9]+)");
  std::ifstream file(MEZZOTINT_SOURCE_DIR "/docs/adapters.md");
  std::map<std::string, std::string> reasons;
  std::string line, mode, kind;
  std::vector<std::string> columns, lines;
  while (std::getline(file, line)) {
    std::smatch match;
    if (std::regex_match(line, match, std::regex("- \\(([0-9]+)\\) (.*)"))) reasons[match[1]] = match[2];
    lines.push_back(line);
  }
  Document document;
  for (const std::string& each : lines) {
    if (each.starts_with("### ")) {
      const std::vector<std::string> names = found(each, quoted);
      mode = names.size() == 2 ? names[0] : "";
      kind = names.size() == 2 ? names[1] : "";
    }
    if (mode.empty() || !each.starts_with("|") || each.starts_with("|-")) continue;
    const std::vector<std::string> cells = found(each.substr(1), std::regex("([^|]*)\\|"));
    if (cells[0].find("format") != std::string::npos) {
      columns.clear();
      for (const std::string& cell : cells) columns.push_back(std::regex_replace(cell, std::regex("[ `]"), ""));
      continue;
    }
    for (const std::string& format : found(cells[0], quoted))
      for (size_t i = 1; i < cells.size() && i < columns.size(); ++i) {
        Stated& stated = document[{mode, kind, format, columns[i]}];
        stated.measured = std::regex_search(cells[i], figure);
        for (const std::string& number : found(cells[i], mark)) stated.reasons.insert(reasons[number]);
      }
  }
  return document;
}

const Document& document() {
  static const Document read = read_document();
  return read;
}

}  // namespace

void Matrix::measure(const std::string& kind, const std::string& algorithm, const std::string& figure, double value,
                     double limit) {
  EXPECT_LE(value, limit) << mode_ << " " << kind << " " << format_ << " " << algorithm << " " << figure;
  double& worst = cells_[{kind, algorithm}].figures.try_emplace(figure, value).first->second;
  worst = std::max(worst, value);
}

void Matrix::leave_out(const std::string& kind, const std::string& algorithm, const std::string& reason) {
  EXPECT_NE(reason, "") << mode_ << " " << kind << " " << format_ << " " << algorithm;
  cells_[{kind, algorithm}].reasons.insert(reason);
}

void Matrix::finish(const std::vector<std::string>& kinds, const std::vector<std::string>& algorithms) const {
  for (const std::string& kind : kinds)
    for (const std::string& algorithm : algorithms)
      EXPECT_TRUE(cells_.contains({kind, algorithm})) << mode_ << " " << kind << " " << format_ << " " << algorithm;
  if (const char* folder = std::getenv("MEZZOTINT_MATRIX"); folder != nullptr) {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (const auto& [place, cell] : cells_)
      out.push_back({{"mode", mode_},
                     {"kind", place.first},
                     {"format", format_},
                     {"algorithm", place.second},
                     {"figures", cell.figures},
                     {"reasons", cell.reasons}});
    std::ofstream(std::filesystem::path(folder) / (mode_ + "-" + format_ + ".json")) << out.dump(1) << "\n";
    return;
  }
  for (const auto& [place, cell] : cells_) {
    const auto at = document().find({mode_, place.first, format_, place.second});
    const Stated stated = at == document().end() ? Stated() : at->second;
    EXPECT_EQ(stated, (Stated{!cell.figures.empty(), cell.reasons}))
        << mode_ << " " << place.first << " " << format_ << " " << place.second
        << ": docs/adapters.md is out of date, run `make docs-adapters`";
  }
}

std::set<std::string> documented_formats(const std::string& mode) {
  std::set<std::string> formats;
  for (const auto& [place, stated] : document())
    if (place[0] == mode) formats.insert(place[2]);
  return formats;
}

}  // namespace mezzotint::test
