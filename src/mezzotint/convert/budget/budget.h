#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/budget/frontier.h"
#include "mezzotint/convert/options.h"

/// A size budget: which format each layer gets so that the output has a given size and as little error as possible.
///
/// What a format costs a layer is its measured relative error (||E|| / ||W||)^2 times a prior for the layer's role
/// (priors.h), and with calibration ||E diag(sqrt m)||^2 over the energy that the layers of its block put out, m being
/// the second moments of the layer's input. The estimated error of a choice is sqrt(sum of costs / sum of weights), a
/// mean of the layers' relative errors. Choosing itself is allocate.h.
namespace mezzotint::convert {

/// What is asked for. At most one of the three targets; without one, `promote_above` is a must.
struct BudgetRequest {
  /// As in formats::select_format, at least one of them quantized; empty = default_budget_formats(). A plain format
  /// means "keep" for layers that hold no more bits than it does.
  std::vector<std::string> formats;
  std::optional<uint64_t> target_bytes;  ///< of the output, header and all
  std::optional<double> target_bpw;      ///< of Plan::bits_per_weight
  std::optional<double> max_error;       ///< of the estimated error: the smallest output below it
  /// Relative error ||E|| / ||W|| that no layer may have. Without a target, every layer gets ConvertOptions::to, and
  /// those above go to the smallest of `formats` that is not above, or to the most exact; never to a smaller one than
  /// `to`.
  std::optional<double> promote_above;
};

struct BudgetRun {
  int threads = 1;
  /// Bytes of the input that were read for measuring, of how many; called from one thread at a time.
  std::function<void(uint64_t done, uint64_t total, const std::string& layer)> progress = {};
  /// Second moments of a layer's input, [K], or empty where nothing is known; full layer name without ".weight". Empty
  /// function = no calibration.
  std::function<std::span<const float>(std::string_view layer)> column_moments = {};
};

struct BudgetLayerChoice {
  std::string layer, format;
  double relative_error = 0;  ///< measured
  double weight = 1;          ///< what its relative error squared was multiplied by
  std::string raised_from;    ///< the format that was above promote_above, or ""
  double raised_error = 0;    ///< its relative error
};

struct Budget {
  ConvertOptions options;                 ///< an ordinary conversion, which measures nothing: `to` and a layer config
  std::vector<BudgetLayerChoice> layers;  ///< in the order of the file
  uint64_t bytes = 0;                     ///< exact, of make_plan with `options`
  double bits_per_weight = 0;
  double cost = 0, error = 0;
  Frontier frontier;  ///< up to five points, the chosen one among them; empty without a target
};

/// "nvfp4", ...: small, common and exact formats that ComfyUI loads.
std::vector<std::string> default_budget_formats();

/// Measures and chooses. Reads about a million elements of every layer, and all of them where promote_above is given
/// without a target; memory stays within options.max_memory. The result depends on nothing but the file and the
/// request. Throws Error "budget-too-small", "budget-too-strict", "nothing-to-choose", "bad-option", and what make_plan
/// throws.
Budget choose_budget(const checkpoint::Model& model, const std::filesystem::path& output, const ConvertOptions& options,
                     const BudgetRequest& request, const BudgetRun& run = {});

/// The choice as JSON text: bytes, bits_per_weight, error, frontier, layers.
std::string to_json(const Budget& budget);

}  // namespace mezzotint::convert
