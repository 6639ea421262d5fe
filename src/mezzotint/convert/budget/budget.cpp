#include "mezzotint/convert/budget/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/budget/allocate.h"
#include "mezzotint/convert/budget/candidates.h"
#include "mezzotint/convert/budget/costs.h"

namespace mezzotint::convert {
namespace {

using Choice = std::vector<size_t>;  // format of FormatLayer, by layer

constexpr size_t kFrontierPoints = 5;

std::vector<NamedFormat> select_formats(const std::vector<std::string>& texts) {
  std::vector<NamedFormat> formats;
  for (const std::string& text : texts) {
    NamedFormat format{text, formats::select_format(text)};
    const auto same = [&](const NamedFormat& other) { return other.selection.label() == format.selection.label(); };
    if (std::none_of(formats.begin(), formats.end(), same)) formats.push_back(std::move(format));
  }
  return formats;
}

std::vector<std::string> format_texts(const BudgetRequest& request) {
  return request.formats.empty() ? default_budget_formats() : request.formats;
}

[[noreturn]] void bad_option(std::string problem, std::string advice) {
  throw Error({.name = "bad-option", .problem = std::move(problem), .advice = std::move(advice)});
}

void check(const BudgetRequest& request) {
  const int targets = request.target_bytes.has_value() + request.target_bpw.has_value() + request.max_error.has_value();
  if (targets > 1)
    bad_option("a size, bits per weight and a largest error cannot be asked for at once", "Give one of them.");
  if (targets == 0 && !request.promote_above)
    bad_option("nothing says how large the output may be", "Give a size, bits per weight or a largest error.");
  for (const auto& number : {request.target_bpw, request.max_error, request.promote_above})
    if (number && !(std::isfinite(*number) && *number >= 0))
      bad_option(fmt::format("{} is no bound", *number), "It is a finite number, 0 or more.");
}

/// The size that a request bounds: of the file, or of the weights alone.
class Sizes {
 public:
  Sizes(const BudgetRequest& request, std::string default_format)
      : default_format_(std::move(default_format)), weights_only_(request.target_bpw.has_value()) {}

  bool weights_only() const { return weights_only_; }
  uint64_t of(const LayerFormat& format) const {
    if (weights_only_) return format.stored_bytes;
    return format.stored_bytes + format.header_bytes + (format.asked == default_format_ ? 0 : format.entry_bytes);
  }
  uint64_t exact(const Plan& plan) const {
    if (!weights_only_) return plan.layout.total_bytes;
    return static_cast<uint64_t>(std::llround(plan.bits_per_weight * elements(plan) / 8));
  }
  uint64_t target(const BudgetRequest& request, const Plan& plan) const {
    if (!weights_only_) return request.target_bytes.value_or(UINT64_MAX);
    return static_cast<uint64_t>(std::min(*request.target_bpw * elements(plan) / 8, 9e18));
  }
  /// By how much a sum of of() may be wrong: offsets in the header have more or fewer digits.
  uint64_t tolerance(const Plan& plan) const { return weights_only_ ? 0 : 64 + 8 * plan.specs.size(); }

 private:
  static double elements(const Plan& plan) { return static_cast<double>(plan.quantized_weights + plan.kept_weights); }

  std::string default_format_;
  bool weights_only_;
};

double error_of(const Costs& costs, double cost) {
  const double weight = costs.total_weight();
  return weight > 0 ? std::sqrt(cost / weight) : 0;
}

FrontierPoint point_of(const FormatCandidates& candidates, const Costs& costs, const Choice& choice, bool chosen) {
  const Plan plan = candidates.plan(choice);
  FrontierPoint point{.bytes = plan.layout.total_bytes, .bits_per_weight = plan.bits_per_weight, .chosen = chosen};
  for (size_t i = 0; i < choice.size(); ++i) {
    point.cost += costs.cost(i, choice[i]);
    const std::string& label = candidates.layers()[i].formats[choice[i]].label;
    const auto at =
        std::find_if(point.mix.begin(), point.mix.end(), [&](const auto& entry) { return entry.first == label; });
    (at == point.mix.end() ? *point.mix.insert(point.mix.end(), {label, 0}) : *at).second += 1;
  }
  std::stable_sort(point.mix.begin(), point.mix.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  point.error = error_of(costs, point.cost);
  return point;
}

/// Choosing under one of the three targets.
class Chooser {
 public:
  Chooser(const FormatCandidates& candidates, const Costs& costs, const BudgetRequest& request)
      : candidates_(candidates), costs_(costs), request_(request), sizes_(request, candidates.default_format()) {
    list_candidates();
  }

  /// Exact size of the smallest choice, of the file or of the weights.
  uint64_t least_size() const { return least_size_; }
  bool reaches_target() const { return request_.max_error || least_size_ <= target_; }

  /// Throws Error "budget-too-strict". The target must be in reach.
  Choice choose() const {
    if (request_.max_error) return for_error(*request_.max_error);
    const uint64_t target = target_;
    Choice choice = least_;
    for (uint64_t reach = target; reach >= allocator_->least_bytes();) {
      Choice next = formats_of(allocator_->for_bytes(reach));
      const uint64_t size = sizes_.exact(candidates_.plan(next));
      if (size <= target) {
        choice = std::move(next);
        break;
      }
      reach -= std::min(reach, size - target);
    }
    use_up(choice, target);
    return choice;
  }

  /// Throws Error "budget-too-small".
  [[noreturn]] void refuse() const {
    const Plan least = candidates_.plan(least_);
    const bool bpw = sizes_.weights_only();
    throw Error(
        {.name = "budget-too-small",
         .problem = "even the smallest choice of formats is over the target",
         .expected = bpw ? fmt::format("at least {:.4f} bits per weight", least.bits_per_weight + 5e-5)
                         : fmt::format("at least {} bytes ({:.2f} GB, {:.2f} GiB)", least.layout.total_bytes,
                                       static_cast<double>(least.layout.total_bytes) / 1e9,
                                       static_cast<double>(least.layout.total_bytes) / 0x1p30),
         .found = bpw ? fmt::format("{}", *request_.target_bpw) : fmt::format("{} bytes", *request_.target_bytes),
         .advice = "Raise the target, name smaller formats in --formats, or --include layers that the rules "
                   "keep (`mezzotint plan` lists them)."});
  }

  Frontier frontier(const Choice& chosen) const {
    const uint64_t least = allocator_->least_bytes(), most = allocator_->most_bytes();
    uint64_t here = fixed_;
    for (size_t i = 0; i < chosen.size(); ++i) here += sizes_.of(candidates_.layers()[i].formats[chosen[i]]);
    std::vector<Choice> choices;
    const auto add = [&](Choice choice) {
      if (std::find(choices.begin(), choices.end(), choice) == choices.end()) choices.push_back(std::move(choice));
    };
    add(chosen);
    const bool inside = chosen != formats_of(allocator_->for_bytes(least)) && here < most;
    std::vector<uint64_t> targets;
    for (size_t i = 0; i < kFrontierPoints; ++i) targets.push_back(least + (most - least) / (kFrontierPoints - 1) * i);
    if (inside) targets = {least, least + (here - std::min(here, least)) / 2, here + (most - here) / 2};
    targets.push_back(most);
    for (const uint64_t target : targets) add(formats_of(allocator_->for_bytes(target)));
    Frontier points;
    for (const Choice& choice : choices) points.push_back(point_of(candidates_, costs_, choice, choice == chosen));
    std::stable_sort(points.begin(), points.end(),
                     [](const FrontierPoint& a, const FrontierPoint& b) { return a.bytes < b.bytes; });
    return points;
  }

 private:
  /// Formats above promote_above are out, unless a layer has no other.
  std::vector<size_t> allowed(size_t layer) const {
    const size_t count = candidates_.layers()[layer].formats.size();
    std::vector<size_t> all;
    size_t best = 0;
    for (size_t f = 0; f < count; ++f) {
      if (!request_.promote_above || costs_.relative_error(layer, f) <= *request_.promote_above) all.push_back(f);
      if (costs_.relative_error(layer, f) < costs_.relative_error(layer, best)) best = f;
    }
    if (all.empty()) all.push_back(best);
    return all;
  }

  void list_candidates() {
    std::vector<BudgetLayer> layers;
    for (size_t i = 0; i < candidates_.layers().size(); ++i) {
      const FormatLayer& layer = candidates_.layers()[i];
      allowed_.push_back(allowed(i));
      BudgetLayer& entry = layers.emplace_back(BudgetLayer{layer.name, {}});
      for (const size_t f : allowed_.back())
        entry.candidates.push_back({layer.formats[f].label, sizes_.of(layer.formats[f]), costs_.cost(i, f)});
    }
    // What is not chosen follows from one exact plan.
    least_ = formats_of(Allocator(layers, 0).for_bytes(Allocator(layers, 0).least_bytes()));
    uint64_t counted = 0;
    for (size_t i = 0; i < least_.size(); ++i) counted += sizes_.of(candidates_.layers()[i].formats[least_[i]]);
    const Plan plan = candidates_.plan(least_);
    least_size_ = sizes_.exact(plan);
    target_ = sizes_.target(request_, plan);
    fixed_ = least_size_ - std::min(least_size_, counted);
    allocator_.emplace(std::move(layers), fixed_);
  }

  Choice formats_of(const Allocation& allocation) const {
    Choice choice;
    for (size_t i = 0; i < allocation.choice.size(); ++i) choice.push_back(allowed_[i][allocation.choice[i]]);
    return choice;
  }

  Choice for_error(double most) const {
    const double weight = costs_.total_weight();
    // Rounding must not refuse the very error that was reported.
    const double cost = most * most * weight * (1 + 1e-9);
    if (cost < allocator_->least_cost())
      throw Error({.name = "budget-too-strict",
                   .problem = "the most exact choice of formats has a larger error",
                   .expected = fmt::format("{:.6f} or more", error_of(costs_, allocator_->least_cost()) + 5e-7),
                   .found = fmt::format("{}", most),
                   .advice = "Allow more error, or name more exact formats in --formats."});
    return formats_of(allocator_->for_cost(cost));
  }

  /// The allocator counts headers by an estimate: sees to it that no single upgrade fits by the exact size either.
  void use_up(Choice& choice, uint64_t target) const {
    struct Upgrade {
      size_t layer, format;
      double gain;
    };
    for (bool changed = true; changed;) {
      changed = false;
      const Plan now = candidates_.plan(choice);
      const uint64_t room = target - sizes_.exact(now) + sizes_.tolerance(now);
      std::vector<Upgrade> upgrades;
      for (size_t i = 0; i < choice.size(); ++i)
        for (const size_t f : allowed_[i]) {
          const double gain = costs_.cost(i, choice[i]) - costs_.cost(i, f);
          const auto& formats = candidates_.layers()[i].formats;
          if (gain > 0 && sizes_.of(formats[f]) <= sizes_.of(formats[choice[i]]) + room)
            upgrades.push_back({i, f, gain});
        }
      std::stable_sort(upgrades.begin(), upgrades.end(),
                       [](const Upgrade& a, const Upgrade& b) { return a.gain > b.gain; });
      for (const Upgrade& upgrade : upgrades) {
        Choice tried = choice;
        tried[upgrade.layer] = upgrade.format;
        if (sizes_.exact(candidates_.plan(tried)) > target) continue;
        choice = std::move(tried);
        changed = true;
        break;
      }
    }
  }

  const FormatCandidates& candidates_;
  const Costs& costs_;
  const BudgetRequest& request_;
  Sizes sizes_;
  std::vector<std::vector<size_t>> allowed_;
  Choice least_;
  uint64_t fixed_ = 0, least_size_ = 0, target_ = 0;
  std::optional<Allocator> allocator_;
};

/// Formats of a uniform conversion, but for layers above the bound.
Choice raise_layers(const std::vector<FormatLayer>& layers, const Costs& costs, double bound) {
  Choice choice(layers.size(), 0);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (costs.relative_error(i, 0) <= bound) continue;
    std::vector<size_t> order;
    // Nobody is raised to a smaller format; scales and markers of equally wide codes differ by a little.
    const auto& all = layers[i].formats;
    for (size_t f = 0; f < all.size(); ++f)
      if (all[f].stored_bytes + all[f].stored_bytes / 64 >= all[0].stored_bytes) order.push_back(f);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const bool a_good = costs.relative_error(i, a) <= bound, b_good = costs.relative_error(i, b) <= bound;
      if (a_good != b_good) return a_good;
      const auto& formats = layers[i].formats;
      if (a_good && formats[a].stored_bytes != formats[b].stored_bytes)
        return formats[a].stored_bytes < formats[b].stored_bytes;
      return costs.relative_error(i, a) < costs.relative_error(i, b);
    });
    choice[i] = order.front();
  }
  return choice;
}

Budget outcome(const FormatCandidates& candidates, const Costs& costs, const Choice& choice,
               const FrontierPoint& point) {
  Budget budget;
  budget.options = candidates.with(choice);
  budget.bytes = point.bytes;
  budget.bits_per_weight = point.bits_per_weight;
  budget.cost = point.cost;
  budget.error = point.error;
  for (size_t i = 0; i < choice.size(); ++i) {
    const FormatLayer& layer = candidates.layers()[i];
    budget.layers.push_back({.layer = layer.name,
                             .format = layer.formats[choice[i]].label,
                             .relative_error = costs.relative_error(i, choice[i]),
                             .weight = costs.weights[i]});
  }
  return budget;
}

Budget promote(const checkpoint::Model& model, const std::filesystem::path& output, const ConvertOptions& options,
               const BudgetRequest& request, const BudgetRun& run) {
  std::vector<std::string> texts = format_texts(request);
  texts.insert(texts.begin(), options.to);
  const auto formats = select_formats(texts);
  if (!formats[0].selection.format->quantized)
    bad_option(fmt::format("{} is not quantized, so nothing is above a bound", formats[0].text),
               "--to names the format that layers are promoted from.");
  const FormatCandidates candidates(model, output, options, formats, true);
  const auto& layers = candidates.layers();
  const double bound = *request.promote_above;
  Costs costs = measure_costs(
      model, layers, options, true, [](size_t, size_t format) { return format == 0; }, run);
  const Costs others = measure_costs(
      model, layers, options, true,
      [&](size_t layer, size_t format) { return format != 0 && costs.relative_error(layer, 0) > bound; }, run);
  for (size_t i = 0; i < layers.size(); ++i)
    for (size_t f = 1; f < layers[i].formats.size(); ++f) costs.errors[i][f] = others.errors[i][f];
  const Choice choice = raise_layers(layers, costs, bound);
  Budget budget = outcome(candidates, costs, choice, point_of(candidates, costs, choice, true));
  for (size_t i = 0; i < choice.size(); ++i)
    if (choice[i] != 0) {
      budget.layers[i].raised_from = layers[i].formats[0].label;
      budget.layers[i].raised_error = costs.relative_error(i, 0);
    }
  return budget;
}

}  // namespace

std::vector<std::string> default_budget_formats() {
  // names a format: the default of --formats, which ComfyUI loads without further nodes
  return {"nvfp4", "int8_row", "float8_e4m3fn", "bf16"};
}

Budget choose_budget(const checkpoint::Model& model, const std::filesystem::path& output, const ConvertOptions& options,
                     const BudgetRequest& request, const BudgetRun& run) {
  check(request);
  if (!request.target_bytes && !request.target_bpw && !request.max_error)
    return promote(model, output, options, request, run);
  const auto formats = select_formats(format_texts(request));
  FormatCandidates candidates(model, output, options, formats, false);
  const Costs costs = measure_costs(
      model, candidates.layers(), options, false, [](size_t, size_t) { return true; }, run);
  // Layers in the default format need no entry in the recipe. What that saves is little, but without it a target that
  // is the size of a uniform conversion would miss that very conversion.
  std::optional<Budget> best;
  const NamedFormat* smallest = nullptr;
  uint64_t least = UINT64_MAX;
  const auto rank = [&](const Budget& budget) {  // what is to be small, then what breaks a tie
    const auto bytes = static_cast<double>(budget.bytes);
    return request.max_error ? std::pair(bytes, budget.cost) : std::pair(budget.cost, bytes);
  };
  for (const NamedFormat& format : formats) {
    if (!format.selection.format->quantized) continue;
    candidates.set_default_format(format);
    Chooser chooser(candidates, costs, request);
    if (chooser.least_size() < least) {
      least = chooser.least_size();
      smallest = &format;
    }
    if (!chooser.reaches_target()) continue;
    const Choice choice = chooser.choose();
    Budget budget = outcome(candidates, costs, choice, point_of(candidates, costs, choice, true));
    if (best && rank(*best) <= rank(budget)) continue;
    budget.frontier = chooser.frontier(choice);
    best = std::move(budget);
  }
  if (!best) {
    candidates.set_default_format(*smallest);
    Chooser(candidates, costs, request).refuse();
  }
  return *best;
}

}  // namespace mezzotint::convert
