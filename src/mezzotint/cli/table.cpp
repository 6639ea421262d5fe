#include "mezzotint/cli/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>

namespace mezzotint::cli {

Table::Table(std::vector<std::string> headings) : headings_(std::move(headings)) {
  for (auto& heading : headings_) {
    right_.push_back(heading.starts_with('>'));
    if (right_.back()) heading.erase(0, 1);
  }
}

void Table::add(std::vector<std::string> row) {
  assert(row.size() == headings_.size());
  rows_.push_back(std::move(row));
}

std::string Table::to_text() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < headings_.size(); ++c) {
    size_t width = headings_[c].size();
    for (const auto& row : rows_) width = std::max(width, row[c].size());
    widths.push_back(width);
  }
  std::string text;
  const auto line = [&](const std::vector<std::string>& row) {
    std::string out;
    for (size_t c = 0; c < row.size(); ++c) {
      if (c > 0) out += "  ";
      out += right_[c] ? fmt::format("{:>{}}", row[c], widths[c]) : fmt::format("{:<{}}", row[c], widths[c]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + '\n';
  };
  if (std::any_of(headings_.begin(), headings_.end(), [](const auto& h) { return !h.empty(); })) line(headings_);
  for (const auto& row : rows_) line(row);
  return text;
}

}  // namespace mezzotint::cli
