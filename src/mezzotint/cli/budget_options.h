#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/cli/conversion_options.h"
#include "mezzotint/convert/budget/budget.h"

/// The options of a size budget, which `convert` and `plan` share: they become ordinary conversion options per model.
namespace mezzotint::cli {

struct BudgetArguments {
  std::optional<std::string> target_size, formats;
  std::optional<double> target_bpw, max_error, promote_above;

  /// Whether formats are chosen layer by layer for a target.
  bool has_target() const { return target_size || target_bpw || max_error; }
};

void add_budget_options(CLI::App& app, BudgetArguments& arguments);

/// What outputs with default names are called by: the format of a uniform conversion, "mixed" for a budget.
std::string output_label(const BudgetArguments& arguments, const convert::ConvertOptions& options);

/// Chooses formats for one model where anything asks for it, and puts the choice into `options`. Throws UsageError for
/// options that contradict each other.
std::optional<convert::Budget> apply_budget(const BudgetArguments& arguments, const ConversionArguments& conversion,
                                            const checkpoint::Model& model, const std::filesystem::path& output,
                                            bool quiet, convert::ConvertOptions& options);

/// The frontier as a table, and the layers that were raised.
std::string budget_text(const convert::Budget& budget);

}  // namespace mezzotint::cli
