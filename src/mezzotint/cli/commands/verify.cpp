#include "mezzotint/checkpoint/verify.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/base/error.h"
#include "mezzotint/cli/context.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/terminal.h"

namespace mezzotint::cli {
namespace {

using checkpoint::Finding;
using checkpoint::Severity;

struct VerifyArguments {
  std::vector<std::string> files;
  bool header_only = false, any_runtime = false, json = false, quiet = false;
  int threads = 0;
};

constexpr std::string_view kSeverityNames[] = {"note", "warning", "error"};

std::string severity_text(Severity severity) {
  const auto name = kSeverityNames[static_cast<size_t>(severity)];
  if (severity == Severity::note) return std::string(name);
  return coloured(name, severity == Severity::error ? Colour::red : Colour::yellow, stdout);
}

// A file that cannot even be opened has one finding: why.
std::vector<Finding> findings_of(const std::string& file, const VerifyArguments& arguments) {
  try {
    const auto model = checkpoint::Model::open(file);
    ProgressDisplay progress("verifying", arguments.quiet);
    return checkpoint::verify(model,
                              {.comfyui = !arguments.any_runtime,
                               .codes = !arguments.header_only,
                               .threads = arguments.threads,
                               .progress = [&](uint64_t done, uint64_t total) { progress.update(done, total, {}); }});
  } catch (const Error& error) {
    if (error.name() == "file-not-found") throw;
    return {{Severity::error, error.name(), error.info().tensor, error.what(), false}};
  }
}

nlohmann::ordered_json file_json(const std::string& file, const std::vector<Finding>& findings, size_t errors) {
  auto list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings)
    list.push_back({{"severity", kSeverityNames[static_cast<size_t>(finding.severity)]},
                    {"code", finding.code},
                    {"subject", finding.subject},
                    {"message", finding.message},
                    {"repairable", finding.repairable}});
  return {{"file", file}, {"sound", errors == 0}, {"errors", errors}, {"findings", std::move(list)}};
}

void print_file(const std::string& file, const std::vector<Finding>& findings, size_t errors, bool quiet) {
  bool repairable = false;
  for (const Finding& finding : findings) {
    if (quiet && finding.severity == Severity::note) continue;
    fmt::print("{}: {}: {}{} [{}]\n", file, severity_text(finding.severity),
               finding.subject.empty() ? "" : finding.subject + ": ", finding.message, finding.code);
    repairable |= finding.repairable;
  }
  if (errors == 0 && !quiet) fmt::print("{}: {}\n", file, coloured("sound", Colour::green, stdout));
  if (errors > 0)
    fmt::print("{}: {} errors{}\n", file, errors,
               repairable ? fmt::format("; `mezzotint repair {} -o OUTPUT` mends those that can be", file) : "");
}

int run_verify(const VerifyArguments& arguments) {
  bool sound = true;
  auto files = nlohmann::ordered_json::array();
  for (const std::string& file : arguments.files) {
    const auto findings = findings_of(file, arguments);
    size_t errors = 0;
    for (const Finding& finding : findings) errors += finding.severity == Severity::error ? 1 : 0;
    sound = sound && errors == 0;
    if (arguments.json)
      files.push_back(file_json(file, findings, errors));
    else
      print_file(file, findings, errors, arguments.quiet);
  }
  if (arguments.json) fmt::print("{}\n", nlohmann::ordered_json{{"sound", sound}, {"files", files}}.dump(2));
  return sound ? kDone : kProblemsFound;
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* sub = app.add_subcommand("verify", "Check that files are sound; exit code 3 if one is not");
  sub->add_option("files", arguments->files, "Files, indexes or folders")->required()->type_name("FILE");
  sub->add_flag("--header-only", arguments->header_only, "Do not read the weights, only headers, scales and markers");
  sub->add_flag("--any-runtime", arguments->any_runtime, "A format that ComfyUI cannot load is a warning only");
  add_threads_option(*sub, arguments->threads);
  add_json_option(*sub, arguments->json);
  sub->add_flag("-q,--quiet", arguments->quiet, "No progress and no notes");
  sub->callback([arguments, &context] { context.action = [arguments] { return run_verify(*arguments); }; });
}

}  // namespace mezzotint::cli
