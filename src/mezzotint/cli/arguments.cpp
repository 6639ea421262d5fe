#include "mezzotint/cli/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>

#include "mezzotint/cli/foreign_options.h"

namespace mezzotint::cli {
namespace {

// Levenshtein distance.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string nearest(const CLI::App& app, const std::string& name) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& candidate : option->get_lnames()) {
      const size_t d = distance(name, candidate);
      if (d >= best_distance) continue;
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

const CLI::App* subcommand_of(const CLI::App& app, const std::string& name) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    if (sub->get_name() == name) return sub;
  return nullptr;
}

bool is_short_option(const std::string& text) {
  return text.size() >= 2 && text[0] == '-' && text[1] != '-' && std::isalpha(static_cast<unsigned char>(text[1])) != 0;
}

}  // namespace

void normalise_option_names(std::vector<std::string>& arguments) {
  for (auto& argument : arguments) {
    if (argument == "--") return;
    if (!argument.starts_with("--")) continue;
    const auto end = argument.begin() + static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size()));
    std::replace(argument.begin() + 2, end, '_', '-');
  }
}

std::optional<std::string> find_unknown_option(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* scope = &app;
  bool takes_value = false;  // the argument is the value of the option before it
  for (const auto& argument : arguments) {
    if (argument == "--") return std::nullopt;
    const bool is_long = argument.starts_with("--");
    if (!is_long && !is_short_option(argument)) {
      if (!takes_value && scope == &app)
        if (const CLI::App* sub = subcommand_of(app, argument)) scope = sub;
      takes_value = false;
      continue;
    }
    const size_t equals = is_long ? argument.find('=') : std::string::npos;
    const std::string spelled = argument.substr(0, equals);
    // A short option may have its value attached: -oFILE.
    const CLI::Option* option = scope->get_option_no_throw(is_long ? spelled : spelled.substr(0, 2));
    takes_value = option != nullptr && equals == std::string::npos && option->get_items_expected_max() > 0 &&
                  (is_long || argument.size() == 2);
    if (option != nullptr && (is_long || takes_value || argument.size() == 2 || option->get_items_expected_max() > 0))
      continue;
    const std::string where = scope == &app ? "mezzotint" : "mezzotint " + scope->get_name();
    if (const auto answer = foreign_option(spelled))
      return fmt::format("{} has no option {}: {}", where, spelled, *answer);
    const std::string near = is_long ? nearest(*scope, spelled.substr(2)) : std::string();
    return fmt::format("{} has no option {}{}\nTry `{} --help`.", where, spelled,
                       near.empty() ? "." : fmt::format("; did you mean --{}?", near), where);
  }
  return std::nullopt;
}

}  // namespace mezzotint::cli
