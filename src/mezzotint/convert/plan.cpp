#include "mezzotint/convert/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <unordered_set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/calibration/use.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/lora_aware/use.h"
#include "mezzotint/convert/merging/use.h"
#include "mezzotint/convert/methods.h"
#include "mezzotint/convert/plan_output.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/rules.h"
#include "mezzotint/convert/tiles.h"

namespace mezzotint::convert {
namespace {

using checkpoint::kDotWeight;
using checkpoint::Layer;
using checkpoint::layer_name;
using checkpoint::Model;
using checkpoint::Role;
using formats::Layout;
using formats::Selection;

constexpr std::string_view kTooWide = "a row does not fit --max-memory";

/// Whether re-encoding would change what the user can have asked for: an option that the request sets away from its
/// default and that the layer does not have. Options left alone never cost a layer its codes.
bool satisfies(const Layout& layout, const Selection& wanted) {
  if (layout.format != wanted.format || !layout.flaw.empty()) return false;
  const formats::Options defaults = formats::complete_options(*wanted.format, {});
  for (const auto& [name, value] : wanted.options.values())
    if (value != defaults.text(name) && value != layout.options.text(name)) return false;
  return true;
}

Selection writable_format(const std::string& text) {
  Selection selection = formats::select_format(text);
  if (!selection.format->writable)
    throw Error({.name = "bad-option",
                 .problem = fmt::format("the format {} can be read but not written", selection.format->name),
                 .advice = fmt::format("The nearest that can be written: {}.", selection.format->support.nearest)});
  return selection;
}

/// Decides row by row. What a rule says comes from LayerRules; what the bytes allow is decided here.
class Planner {
 public:
  Planner(Plan& plan, const Model& model) : plan_(plan), model_(model), tensors_(model.source().tensors()) {}

  void run() {
    choose_component();
    for (const checkpoint::Finding& finding : model_.findings())
      if (finding.code == "orphan-scale" && finding.severity == checkpoint::Severity::note)
        placeholders_.insert(finding.subject);
    for (const std::string& pattern : plan_.options.drop) drop_.emplace_back(pattern);
    for (size_t i = 0; i < tensors_.size(); ++i) consider(i);
    settle_names();
    describe_whole();
  }

 private:
  /// What the rules make of one weight.
  struct RuleDecision {
    std::optional<Selection> selection;  // nothing = keep
    std::optional<Selection> fallback;   // for shapes that `selection` cannot take
    bool full_precision_matrix_mult = false;
    int effort = 0;
    std::string reason;
  };

  /// A component that is converted: its architecture and the rules that follow.
  struct Part {
    Detection detection;
    LayerRules rules;
  };

  void read_layer_config() {
    if (plan_.options.layer_config.empty()) return;
    std::vector<std::string> names;
    for (const io::TensorInfo& info : tensors_)
      if (info.name.ends_with(kDotWeight)) names.push_back(layer_name(info.name));
    layer_config_ = LayerConfig::parse(plan_.options.layer_config, names, plan_.options.layer_config_fullmatch);
    for (const std::string& key : layer_config_->unused(names))
      plan_.warnings.push_back(
          fmt::format("The layer config's '{}' matches no layer; `mezzotint plan --template` lists all.", key));
  }

  Part make_part(const Component& component) const {
    const ConvertOptions& options = plan_.options;
    const bool automatic = options.preset == "auto" || options.preset == "none";
    Detection found = automatic ? detect(tensors_, component.prefix)
                                : detect_as(select_preset(options.preset), tensors_, component.prefix);
    RuleOptions rules{.preset = options.preset == "none" ? nullptr : found.preset,
                      .prefix = found.prefix,
                      .include = options.include,
                      .exclude = options.exclude};
    rules.layer_config = layer_config_;
    return {std::move(found), LayerRules(std::move(rules))};
  }

  RuleDecision decide(const Part& part, const std::string& tensor, const Shape& shape, bool is_float) const {
    const LayerDecision rule = part.rules.decide(tensor, shape, is_float);
    RuleDecision decision;
    decision.reason = rule.reason;
    if (!to_.format) {
      decision.reason = "stays in its format";
      return decision;
    }
    decision.full_precision_matrix_mult =
        rule.full_precision_matrix_mult.value_or(plan_.options.full_precision_matrix_mult);
    decision.effort = rule.simple.value_or(false) ? 0 : plan_.options.effort;
    const bool asked_for = rule.by == DecidedBy::layer_config || rule.by == DecidedBy::exclude;
    if (!to_.format->quantized && !asked_for) {
      // A plain dtype is for the whole model: what the rules protect is quality, which a cast hardly touches.
      if (is_float && shape.size() >= 2) decision.selection = to_;
      decision.reason = decision.selection ? "cast" : shape.size() < 2 ? "1-D" : "not a float tensor";
    } else if (rule.quantize) {
      decision.selection = rule.selection ? rule.selection : to_;
      decision.fallback = fallback_;
    } else if (fallback_ && (rule.by == DecidedBy::preset || rule.by == DecidedBy::exclude)) {
      decision.selection = fallback_;
      decision.reason = "fallback: " + rule.reason;
    }
    return decision;
  }

  void choose_component() {
    if (!plan_.options.to.empty()) to_ = writable_format(plan_.options.to);
    if (!plan_.options.fallback.empty()) fallback_ = writable_format(plan_.options.fallback);
    read_layer_config();
    components_ = find_components(tensors_);
    selected_.assign(components_.size(), false);
    const std::string wanted = to_.format || !plan_.options.component.empty() ? plan_.options.component : "all";
    for (const size_t index : select_components(components_, wanted)) selected_[index] = true;
    for (size_t i = 0; i < components_.size(); ++i) {
      parts_.push_back(selected_[i] ? std::make_unique<Part>(make_part(components_[i])) : nullptr);
      if (!selected_[i]) continue;
      const Detection& found = parts_[i]->detection;
      const bool unused = plan_.options.preset == "none";
      plan_.preset += (plan_.preset.empty() ? "" : ", ") + std::string(unused ? "none" : found.preset->name);
      if (!unused) plan_.presets.emplace_back(found.prefix, found.preset);
      plan_.preset_reason += (plan_.preset_reason.empty() ? "" : " ") +
                             (unused ? "No architecture's rules were used, as asked." : found.reason);
      plan_.component += (plan_.component.empty() ? "" : ", ") + components_[i].name;
    }
  }

  bool dropped(const std::string& tensor) const {
    return std::any_of(drop_.begin(), drop_.end(), [&](const Regex& regex) { return regex.search(tensor); });
  }

  PlanRow start_row(size_t tensor) const {
    const io::TensorInfo& info = tensors_[tensor];
    PlanRow row;
    row.name = info.name;
    row.from = row.to = std::string(name(info.dtype));
    row.shape = info.shape;
    row.source = tensor;
    row.bytes_in = info.bytes;
    return row;
  }

  void add_copy(size_t tensor, std::string reason) {
    PlanRow row = start_row(tensor);
    row.reason = std::move(reason);
    plan_.rows.push_back(std::move(row));
  }

  void add_drop(size_t tensor, std::string reason) {
    PlanRow row = start_row(tensor);
    row.action = Action::drop;
    row.to.clear();
    row.reason = std::move(reason);
    plan_.rows.push_back(std::move(row));
  }

  void consider(size_t tensor) {
    const io::TensorInfo& info = tensors_[tensor];
    if (model_.layer_of(tensor) != Model::npos) return consider_part(tensor, model_.layer_of(tensor));
    if (model_.is_foreign(tensor)) return consider_foreign(tensor);
    if (dropped(info.name)) return add_drop(tensor, "asked for by --drop");
    if (model_.role(tensor) == Role::file_marker)
      return add_drop(tensor, "marker of the whole file; every layer gets its own");
    if (model_.role(tensor) != Role::orphan) return consider_float(tensor);
    if (placeholders_.contains(info.name)) return add_drop(tensor, "placeholder of the legacy dialect");
    if (info.name.ends_with(checkpoint::kMarkerSuffix)) return add_drop(tensor, "marker without a quantized weight");
    ++orphans_;
    add_copy(tensor, "a scale that belongs to no layer");
  }

  /// Tensors of a quantized layer.
  void consider_part(size_t tensor, size_t index) {
    const Layer& layer = model_.layers()[index];
    const Role role = model_.role(tensor);
    if (dropped(tensors_[layer.parts[0]].name))
      return add_drop(tensor, role == Role::codes ? "asked for by --drop" : "its layer is dropped");
    const bool asked = dropped(tensors_[tensor].name);
    if (asked && !layer.consistent) return add_drop(tensor, "asked for by --drop");
    if (!layer.consistent) return consider_broken(tensor, layer);
    if (role == Role::codes) return consider_layer(tensor, index);
    if (role == Role::activation) return consider_activation(tensor, layer, asked);
    // Parameters and markers go with the layer's weight.
    if (asked) ++undroppable_;
  }

  void consider_broken(size_t tensor, const Layer& layer) {
    if (model_.role(tensor) == Role::codes) {
      ++broken_;
      if (!layer.marker.empty()) carried_.emplace_back(layer.name, layer.marker);
    }
    add_copy(tensor, "part of a layer that does not fit its marker");
  }

  /// Layers of formats that are not compiled in: all or nothing but the bias.
  void consider_foreign(size_t tensor) {
    const std::string& name = tensors_[tensor].name;
    const auto [layer, suffix] = checkpoint::split_name(name);
    if (dropped(name)) return add_drop(tensor, "asked for by --drop");
    if (suffix != "bias" && dropped(std::string(layer) + std::string(kDotWeight)))
      return add_drop(tensor, "its layer is dropped");
    add_copy(tensor, "part of a layer in a format that this version does not know");
  }

  // Activation scales stay with codes that stay; for other codes they were measured against the wrong format.
  // Smoothing factors are a part of the weight, which is decoded with them.
  void consider_activation(size_t tensor, const Layer& layer, bool asked) {
    const auto wanted = wanted_for_layer(layer);
    const bool smooths = layer.smoothed && tensor == *layer.pre_quant_scale;
    if (smooths && wanted.layout) return add_drop(tensor, "multiplied into the weight");
    if (asked && !smooths) return add_drop(tensor, "asked for by --drop");
    if (asked) ++undroppable_;
    if (!wanted.layout) {
      add_copy(tensor, "activation scale of a layer that keeps its codes");
      const auto suffix = checkpoint::canonical_suffix(checkpoint::split_name(tensors_[tensor].name).second);
      plan_.rows.back().stored_as = layer.name + "." + std::string(suffix);
      return;
    }
    add_drop(tensor,
             fmt::format("activation scale of {}, not of {}", layer.layout.format->name, wanted.selection.label()));
  }

  struct QuantizedDecision {
    std::optional<Layout> layout;  // re-encode to this; nothing = keep the codes
    Selection selection;
    bool full_precision_matrix_mult = false;
    int effort = 0;
    std::string reason;
  };

  QuantizedDecision wanted_for_layer(const Layer& layer) const {
    QuantizedDecision decision;
    decision.full_precision_matrix_mult = layer.full_precision_matrix_mult;
    const std::string& weight = tensors_[layer.parts[0]].name;
    const size_t component = component_of(components_, weight);
    if (!selected_[component]) {
      decision.reason = "other component";
      return decision;
    }
    const Shape& shape = layer.layout.shape;
    const RuleDecision rule = decide(*parts_[component], weight, shape, true);
    decision.full_precision_matrix_mult |= rule.full_precision_matrix_mult;
    decision.effort = rule.effort;
    if (!rule.selection) {
      decision.reason = rule.reason;
      return decision;
    }
    for (const auto* choice : {&rule.selection, &rule.fallback}) {
      if (!*choice) continue;
      decision.selection = **choice;
      decision.reason += decision.reason.empty() ? "" : "; ";
      if (satisfies(layer.layout, **choice)) {
        decision.reason += "already " + std::string(layer.layout.format->name);
        return decision;
      }
      std::string refusal;
      decision.layout = describe(weight, shape, **choice, refusal);
      if (decision.layout && !fits_memory(layer.parts[0], model_.layer_of(layer.parts[0]), *decision.layout)) {
        decision.layout.reset();
        refusal = kTooWide;
      }
      // What the shape makes of the request may be what the layer already is.
      if (decision.layout && satisfies(layer.layout, {decision.layout->format, decision.layout->options})) {
        decision.reason += "already " + std::string(layer.layout.format->name) + noted(*decision.layout);
        decision.layout.reset();
        return decision;
      }
      decision.reason += decision.layout ? rule.reason + noted(*decision.layout) : refusal;
      if (decision.layout) break;
    }
    return decision;
  }

  std::optional<Layout> describe(const std::string& tensor, const Shape& shape, const Selection& selection,
                                 std::string& refusal) const {
    const std::string bias = std::string(checkpoint::split_name(tensor).first) + ".bias";
    auto description = selection.format->describe(
        {.shape = shape, .kind = classify_layer(tensor, shape), .bias = model_.source().find(bias) != io::Source::npos},
        selection.options);
    refusal = selection.label() + ": " + description.refusal;
    return description.layout;
  }

  void consider_layer(size_t tensor, size_t index) {
    const Layer& layer = model_.layers()[index];
    QuantizedDecision decision = wanted_for_layer(layer);
    if (!decision.layout && decision.reason.ends_with(kTooWide)) ++too_wide_;
    PlanRow row = start_row(tensor);
    row.name = layer.name;
    row.layer = index;
    row.shape = layer.layout.shape;
    row.from = label(layer.layout);
    for (size_t i = 1; i < layer.parts.size(); ++i) row.bytes_in += tensors_[layer.parts[i]].bytes;
    row.reason = decision.reason;
    row.effort = decision.effort;
    if (decision.layout) {
      row.action = Action::reencode;
      row.layout = std::move(decision.layout);
      lossy_ |= layer.layout.format->quantized;
    } else {
      row.action = Action::keep_codes;
      row.layout = layer.layout;
      if (layer.dialect != checkpoint::Dialect::comfy_quant)
        row.reason += fmt::format("; marker rewritten (was: {})", checkpoint::name(layer.dialect));
    }
    finish_layout(row, decision.full_precision_matrix_mult);
    plan_.rows.push_back(std::move(row));
  }

  void consider_float(size_t tensor) {
    const io::TensorInfo& info = tensors_[tensor];
    const size_t component = component_of(components_, info.name);
    if (!selected_[component]) return add_copy(tensor, "other component");
    const RuleDecision rule = decide(*parts_[component], info.name, info.shape, is_float_source(info.dtype));
    if (!rule.selection) return add_copy(tensor, rule.reason);

    PlanRow row = start_row(tensor);
    row.effort = rule.effort;
    std::string reason = rule.reason;
    std::string refusal;
    std::optional<Layout> layout = describe(info.name, info.shape, *rule.selection, refusal);
    if (!layout && rule.fallback) {
      layout = describe(info.name, info.shape, *rule.fallback, reason);
      reason = layout ? "fallback, because of " + refusal : refusal + "; fallback " + reason;
    } else if (!layout) {
      reason = refusal;
    }
    if (!layout) return add_copy(tensor, reason);
    if (!fits_memory(tensor, Model::npos, *layout)) {
      ++too_wide_;
      return add_copy(tensor, std::string(kTooWide));
    }
    if (layout->tensors[0].dtype == info.dtype)  // fp8 without a scale: a scale would only round once more
      return add_copy(tensor, "already " + std::string(name(info.dtype)));
    lossy_ |= is_decoded_source(info.dtype);
    row.action = Action::encode;
    row.name = layout->format->quantized ? layer_name(info.name) : info.name;
    row.reason = reason + noted(*layout);
    row.layout = std::move(layout);
    finish_layout(row, rule.full_precision_matrix_mult);
    plan_.rows.push_back(std::move(row));
  }

  void finish_layout(PlanRow& row, bool full_precision_matrix_mult) {
    row.to = label(*row.layout);
    if (!row.layout->format->quantized) return;
    row.marker = checkpoint::marker_text(*row.layout, full_precision_matrix_mult);
    if (!row.layout->note.empty()) ++noted_[row.layout->note];
    const formats::Support& support = row.layout->format->support;
    if (!support.comfyui) not_loadable_.try_emplace(row.layout->format->name, &support).first->second = &support;
  }

  static std::string noted(const Layout& layout) { return layout.note.empty() ? "" : "; " + layout.note; }

  static std::string label(const Layout& layout) { return Selection{layout.format, layout.options}.label(); }

  // Every tile needs at least one granule of rows. The number of threads has no say: it must not decide bytes.
  bool fits_memory(size_t tensor, size_t layer, const Layout& layout) const {
    PlanRow probe;
    probe.source = tensor;
    probe.layer = layer;
    probe.layout = layout;
    probe.action = layer == Model::npos ? Action::encode : Action::reencode;
    return tile_shape(model_, probe, 1).total() <= plan_.options.max_memory;
  }

  /// What an earlier conversion left beside a weight makes room for the new scales.
  void settle_names() {
    std::unordered_set<std::string_view> quantized;
    for (const PlanRow& row : plan_.rows)
      if (row.layout && row.layout->format->quantized)
        quantized.insert(checkpoint::split_name(tensors_[row.source].name).first);
    for (PlanRow& row : plan_.rows) {
      const auto [layer, suffix] = checkpoint::split_name(tensors_[row.source].name);
      if (row.action != Action::copy || model_.layer_of(row.source) != Model::npos || !quantized.contains(layer) ||
          !checkpoint::is_quantization_suffix(checkpoint::canonical_suffix(suffix)))
        continue;
      row.action = Action::drop;
      row.to.clear();
      row.reason = "belonged to no quantized weight; the layer gets its own";
      --orphans_;
    }
  }

  void describe_whole() {
    for (const auto& foreign : model_.foreign_layers())
      if (!dropped(foreign.first + std::string(kDotWeight))) carried_.push_back(foreign);
    if (!model_.foreign_layers().empty())
      plan_.notes.push_back(
          fmt::format("{} layers are in a format that this version does not know or cannot be what their markers say; "
                      "copied as they are.",
                      model_.foreign_layers().size()));
    if (orphans_ > 0)
      plan_.warnings.push_back(fmt::format(
          "{} scales belong to no layer that can be read and were copied; see `mezzotint verify`.", orphans_));
    if (too_wide_ > 0)
      plan_.warnings.push_back(fmt::format(
          "{} layers were left as they are because a row does not fit; give a larger `--max-memory`.", too_wide_));
    if (undroppable_ > 0)
      plan_.warnings.push_back(fmt::format(
          "`--drop` matches {} scales or markers of layers that stay; they go only with their weight.", undroppable_));
    if (broken_ > 0)
      plan_.warnings.push_back(fmt::format(
          "{} quantized layers do not fit their markers and were copied as they are; see `mezzotint verify`.",
          broken_));
    for (const auto& [note, count] : noted_) plan_.notes.push_back(fmt::format("{} layers {}.", count, note));
    if (lossy_) plan_.notes.push_back("The source is already quantized: its rounding errors stay in the result.");
    for (size_t i = 0; i < components_.size(); ++i)
      if (to_.format && selected_[i] && !parts_[i]->detection.known() && plan_.options.preset == "auto")
        plan_.notes.push_back(
            "Unknown architecture: only the rules that hold for every model were used. `--preset NAME` chooses one.");
    for (const auto& [format, support] : not_loadable_)
      plan_.warnings.push_back(
          fmt::format("ComfyUI cannot load '{}' (loads it: {}). The nearest that it can: `--to {}`.", format,
                      support->loaders, support->nearest));
  }

  Plan& plan_;
  const Model& model_;
  const std::vector<io::TensorInfo>& tensors_;
  std::vector<Component> components_;
  std::vector<bool> selected_;
  std::vector<std::unique_ptr<Part>> parts_;  // by component; null where not selected
  Selection to_;
  std::optional<Selection> fallback_;
  std::optional<LayerConfig> layer_config_;
  std::vector<Regex> drop_;
  std::unordered_set<std::string> placeholders_;  // dummy scales of legacy files
  std::map<std::string_view, const formats::Support*> not_loadable_;
  std::map<std::string, size_t> noted_;  // layers by Layout::note
  size_t broken_ = 0, orphans_ = 0, too_wide_ = 0, undroppable_ = 0;
  bool lossy_ = false;

 public:
  std::vector<std::pair<std::string, std::string>> carried_;
};

}  // namespace

Plan make_plan(const checkpoint::Model& model, const std::filesystem::path& output, const ConvertOptions& options,
               int threads) {
  Plan plan;
  plan.options = options;
  plan.input = model.source().files().front();
  plan.output = output;
  plan.threads = threads;
  Planner planner(plan, model);
  planner.run();
  use_adapters(plan, model);
  use_scale_adapters(plan, model);
  use_calibration(plan, model);
  choose_methods(plan, model);
  use_input_adapters(plan, model);
  lay_out_output(plan, model, planner.carried_);
  estimate(plan, model);
  return plan;
}

}  // namespace mezzotint::convert
