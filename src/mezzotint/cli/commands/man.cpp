#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "mezzotint/base/error.h"
#include "mezzotint/base/version.h"
#include "mezzotint/cli/app_tree.h"

namespace mezzotint::cli {
namespace {

// troff reads '\' everywhere and '.' or ''' at the start of a line; a bare '-' may come out as a hyphen.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n'))
      out += std::string("\\&") + c;
    else
      out += c;
  }
  return out;
}

std::string heading(const std::string& page) {
  return fmt::format(".TH \"{}\" 1 \"\" \"mezzotint {}\" \"Mezzotint\"\n", roff(page), kVersion);
}

std::string options_text(const std::vector<OptionFacts>& options) {
  std::string text;
  for (const auto& option : options) {
    text += ".TP\n";
    if (option.names.empty()) {
      text += fmt::format("\\fI{}\\fR{}\n", roff(option.positional), option.many ? " ..." : "");
    } else {
      std::string names;
      for (const auto& name : option.names) names += (names.empty() ? "" : ", ") + ("\\fB" + roff(name) + "\\fR");
      text += names + (option.value.empty() ? "" : " \\fI" + roff(option.value) + "\\fR") + "\n";
    }
    text += roff(option.help) + "\n";
  }
  return text;
}

constexpr std::string_view kExitStatus = R"(.SH EXIT STATUS
.TP
0
Done.
.TP
1
Failed; the message on standard error says why.
.TP
2
Wrong usage.
.TP
3
verify found problems.
.TP
130
Interrupted; a conversion can be resumed.
)";

constexpr std::string_view kEnvironment = R"(.SH ENVIRONMENT
.TP
MEZZOTINT_ISA
Caps the instruction set: scalar, avx2 or avx512. The bytes written do not depend on it.
.TP
NO_COLOR
No colours, if set.
)";

std::string main_page(const CLI::App& app) {
  std::string text = heading("MEZZOTINT");
  text += fmt::format(".SH NAME\nmezzotint \\- {}\n", roff(app.get_description()));
  text += ".SH SYNOPSIS\n.B mezzotint\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH COMMANDS\n";
  for (const auto& command : commands(app))
    text += fmt::format(".TP\n\\fBmezzotint\\-{}\\fR(1)\n{}\n", command.name, roff(command.help));
  text += ".SH OPTIONS\n" + options_text(global_options(app));
  return text + std::string(kExitStatus) + std::string(kEnvironment);
}

std::string command_page(const CommandFacts& command) {
  std::string text = heading("MEZZOTINT-" + command.name);
  text += fmt::format(".SH NAME\nmezzotint\\-{} \\- {}\n.SH SYNOPSIS\n.B mezzotint {}\n", command.name,
                      roff(command.help), command.name);
  for (const auto& option : command.options)
    if (option.names.empty()) text += fmt::format("\\fI{}\\fR{} ", roff(option.positional), option.many ? " ..." : "");
  text += "[\\fIOPTIONS\\fR]\n.SH OPTIONS\n" + options_text(command.options);
  return text + std::string(kExitStatus) + ".SH SEE ALSO\n\\fBmezzotint\\fR(1)\n";
}

void save(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.flush();
  if (!file) throw Error({.name = "write-failed", .problem = "the page cannot be written", .file = path.string()});
}

int run_man(const CLI::App& app, const std::string& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);  // a failure shows when the first page is written
  save(std::filesystem::path(folder) / "mezzotint.1", main_page(app));
  for (const auto& command : commands(app))
    save(std::filesystem::path(folder) / ("mezzotint-" + command.name + ".1"), command_page(command));
  return kDone;
}

}  // namespace

void add_man(CLI::App& app, Context& context) {
  auto folder = std::make_shared<std::string>();
  CLI::App* sub = app.add_subcommand("man", "Write the man pages")->group("");
  sub->add_option("-o,--output", *folder, "Folder for the pages")->required()->type_name("FOLDER");
  sub->callback([folder, &app, &context] { context.action = [folder, &app] { return run_man(app, *folder); }; });
}

}  // namespace mezzotint::cli
