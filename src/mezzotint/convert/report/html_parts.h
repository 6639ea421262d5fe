#pragma once
#include <string>
#include <string_view>

#include "mezzotint/convert/report/findings.h"
#include "mezzotint/convert/report/report.h"

/// The pieces that report_html puts together (room-internal). Each appends to `out`.
namespace mezzotint::convert {

/// What every piece looks at.
struct PageView {
  const Report& report;
  ReportSummary summary;
  Findings findings;
  std::vector<LayerStanding> standings;
};

/// Rows of the table in the file itself; the script adds the rest.
inline constexpr size_t kStaticRows = 100;

void write_map(std::string& out, const PageView& view);
void write_table(std::string& out, const PageView& view);
void write_histograms(std::string& out, const PageView& view);
void write_frontier(std::string& out, const PageView& view);

/// For text and attribute values in double quotes. Control characters become U+FFFD.
std::string escape(std::string_view text);
/// Escaped, and what stands between backticks is marked as code.
std::string escape_with_code(std::string_view text);
/// report_json in one line, fit for a script element.
std::string embedded_json(const PageView& view);

// The files page.css and page.js (cmake/ReportPage.cmake).
extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace mezzotint::convert
