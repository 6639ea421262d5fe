#include "mezzotint/cli/report_file.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>

#include "mezzotint/base/error.h"
#include "mezzotint/cli/machine.h"

namespace mezzotint::cli {
namespace {

void write_text(const std::filesystem::path& path, const std::string& text) {
  errno = 0;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file)
    throw Error({.name = "write-failed",
                 .problem = "the report cannot be written",
                 .file = path.string(),
                 .found = errno != 0 ? std::strerror(errno) : ""});
}

}  // namespace

void write_report(convert::Report report, const std::filesystem::path& html) {
  const MachineFacts machine = machine_facts();
  if (report.cpu.empty()) report.cpu = machine.cpu;
  if (report.threads == 0) report.threads = machine.threads;
  if (report.made.empty()) report.made = fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(std::time(nullptr)));
  write_text(html, convert::report_html(report));
  std::filesystem::path json = html;
  json.replace_extension(".json");
  write_text(json, convert::report_json(report));
}

}  // namespace mezzotint::cli
