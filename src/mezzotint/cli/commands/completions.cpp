#include <fmt/format.h>

#include "mezzotint/cli/app_tree.h"

namespace mezzotint::cli {
namespace {

std::string all_names(const std::vector<OptionFacts>& options) {
  std::string names;
  for (const auto& option : options)
    for (const auto& name : option.names) names += (names.empty() ? "" : " ") + name;
  return names;
}

std::string bash(const CLI::App& app) {
  std::string names, cases;
  for (const auto& command : commands(app)) {
    names += command.name + " ";
    std::string words;  // options whose value is not a path: nothing to offer
    for (const auto& option : command.options)
      if (!option.value.empty() && !option.is_path())
        for (const auto& name : option.names) words += (words.empty() ? "" : "|") + name;
    cases += fmt::format("    {}) options=\"{}\"; words=\"{}\" ;;\n", command.name, all_names(command.options), words);
  }
  return fmt::format(R"(# bash completion of mezzotint; written by `mezzotint completions bash`
_mezzotint() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" options="" words=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{}{}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{}  esac
  if [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$current"))
  elif [[ -z "$words" || "$previous" != -* || "|$words|" != *"|$previous|"* ]]; then
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -F _mezzotint mezzotint
)",
                     names, all_names(global_options(app)), cases);
}

// Inside single quotes and brackets of an _arguments specification.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
      continue;
    }
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh(const CLI::App& app) {
  std::string list, cases;
  for (const auto& command : commands(app)) {
    list += fmt::format("    '{}:{}'\n", command.name, zsh_text(command.help));
    cases += fmt::format("    {})\n      _arguments", command.name);
    for (const auto& option : command.options) {
      const std::string action = option.is_path() ? "_files" : " ";
      if (option.names.empty()) {
        cases += fmt::format(" \\\n        '{}{}:{}'", option.many ? "*:" : ":", option.positional, action);
        continue;
      }
      for (const auto& name : option.names)
        cases += fmt::format(" \\\n        '{}{}[{}]{}'", option.many ? "*" : "", name, zsh_text(option.help),
                             option.value.empty() ? "" : ":" + option.value + ":" + action);
    }
    cases += "\n      ;;\n";
  }
  return fmt::format(R"(#compdef mezzotint
# zsh completion of mezzotint; written by `mezzotint completions zsh`
_mezzotint() {{
  local -a list
  list=(
{}  )
  if (( CURRENT == 2 )); then
    _describe command list
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{}  esac
}}
_mezzotint "$@"
)",
                     list, cases);
}

std::string fish_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string fish(const CLI::App& app) {
  std::string text = "# fish completion of mezzotint; written by `mezzotint completions fish`\n";
  const auto add = [&](const std::string& condition, const OptionFacts& option) {
    if (option.names.empty()) return;
    text += fmt::format("complete -c mezzotint -n '{}'", condition);
    for (const auto& name : option.names)
      text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    if (!option.value.empty()) text += option.is_path() ? " -r -F" : " -x";
    text += fmt::format(" -d '{}'\n", fish_text(option.help));
  };
  for (const auto& option : global_options(app)) add("__fish_use_subcommand", option);
  for (const auto& command : commands(app)) {
    text += fmt::format("complete -c mezzotint -f -n __fish_use_subcommand -a {} -d '{}'\n", command.name,
                        fish_text(command.help));
    for (const auto& option : command.options) add("__fish_seen_subcommand_from " + command.name, option);
  }
  return text;
}

int run_completions(const CLI::App& app, const std::string& shell) {
  if (shell == "bash")
    fmt::print("{}", bash(app));
  else if (shell == "zsh")
    fmt::print("{}", zsh(app));
  else if (shell == "fish")
    fmt::print("{}", fish(app));
  else
    throw UsageError(fmt::format("There are no completions for '{}'. The shells are bash, zsh and fish.", shell));
  return kDone;
}

}  // namespace

void add_completions(CLI::App& app, Context& context) {
  auto shell = std::make_shared<std::string>();
  CLI::App* sub = app.add_subcommand("completions", "Print a completion script for a shell")->group("");
  sub->add_option("shell", *shell, "bash, zsh or fish")->required()->type_name("SHELL");
  sub->callback([shell, &app, &context] { context.action = [shell, &app] { return run_completions(app, *shell); }; });
}

}  // namespace mezzotint::cli
