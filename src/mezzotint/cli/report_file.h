#pragma once
#include <filesystem>

#include "mezzotint/convert/report/report.h"

namespace mezzotint::cli {

/// Writes the page and, beside it with the ending .json, its numbers; existing files are replaced. Fills in what the
/// program knows of the machine and the time. Throws Error "write-failed".
void write_report(convert::Report report, const std::filesystem::path& html);

}  // namespace mezzotint::cli
