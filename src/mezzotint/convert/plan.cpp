#include "mezzotint/convert/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/plan_output.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/rules.h"
#include "mezzotint/convert/tiles.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;
using formats::Layout;
using formats::Selection;

constexpr std::string_view kWeight = ".weight";

bool is_float_source(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

std::string layer_name(const std::string& tensor) {
  return tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : tensor;
}

/// Whether re-encoding would change what the user can have asked for: an option that the request sets away from its
/// default and that the layer does not have. Options left alone never cost a layer its codes.
bool satisfies(const Layout& layout, const Selection& wanted) {
  if (layout.format != wanted.format) return false;
  const formats::Options defaults = formats::complete_options(*wanted.format, {});
  for (const auto& [name, value] : wanted.options.values())
    if (value != defaults.text(name) && value != layout.options.text(name)) return false;
  return true;
}

/// Decides row by row. What a rule says comes from LayerRules; what the bytes allow is decided here.
class Planner {
 public:
  Planner(Plan& plan, const Model& model) : plan_(plan), model_(model), tensors_(model.source().tensors()) {}

  void run() {
    choose_component();
    for (const std::string& pattern : plan_.options.drop) drop_.emplace_back(pattern);
    for (size_t i = 0; i < tensors_.size(); ++i) consider(i);
    describe_whole();
  }

 private:
  void choose_component() {
    components_ = find_components(tensors_);
    selected_.assign(components_.size(), false);
    for (const size_t index : select_components(components_, plan_.options.component)) selected_[index] = true;
    for (size_t i = 0; i < components_.size(); ++i)
      rules_.push_back(selected_[i] ? std::make_unique<LayerRules>(plan_.options, tensors_, components_[i].prefix)
                                    : nullptr);
    for (size_t i = 0; i < components_.size(); ++i) {
      if (!selected_[i]) continue;
      const Detection& found = rules_[i]->detection();
      plan_.preset += (plan_.preset.empty() ? "" : ", ") + std::string(found.preset->name);
      plan_.preset_reason += (plan_.preset_reason.empty() ? "" : " ") + found.reason;
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
    const size_t layer = model_.layer_of(tensor);
    const bool with_layer = layer != Model::npos && model_.role(tensor) != Role::codes;
    if (with_layer && model_.layers()[layer].consistent) {
      if (model_.role(tensor) == Role::activation) return consider_activation(tensor, model_.layers()[layer]);
      return;  // parameters and markers go with the layer's weight
    }
    if (dropped(info.name)) return drop_with_parts(tensor);
    if (model_.role(tensor) == Role::file_marker)
      return add_drop(tensor, "marker of the whole file; every layer gets its own");
    if (model_.role(tensor) == Role::orphan) {
      if (is_legacy_placeholder(tensor)) return add_drop(tensor, "placeholder scale of a layer that is not quantized");
      if (info.name.ends_with(checkpoint::kMarkerSuffix)) return add_drop(tensor, "marker without a quantized weight");
      return add_copy(tensor, "a scale that belongs to no layer");
    }
    if (layer != Model::npos && !model_.layers()[layer].consistent) {
      if (model_.role(tensor) == Role::codes) ++broken_;
      if (model_.role(tensor) == Role::codes && !model_.layers()[layer].marker.empty())
        carried_.emplace_back(model_.layers()[layer].name, model_.layers()[layer].marker);
      return add_copy(tensor, "part of a layer that does not fit its marker");
    }
    if (layer != Model::npos) return consider_layer(tensor, layer);
    consider_float(tensor);
  }

  bool is_legacy_placeholder(size_t tensor) const {
    return std::any_of(model_.findings().begin(), model_.findings().end(), [&](const checkpoint::Finding& finding) {
      return finding.subject == tensors_[tensor].name && finding.severity == checkpoint::Severity::note;
    });
  }

  void drop_with_parts(size_t tensor) {
    add_drop(tensor, "asked for by --drop");
    const size_t layer = model_.layer_of(tensor);
    if (layer == Model::npos || model_.role(tensor) != Role::codes) return;
    dropped_layers_.push_back(layer);
  }

  // Activation scales stay with codes that stay; for other codes they were measured against the wrong format.
  void consider_activation(size_t tensor, const Layer& layer) {
    const auto wanted = wanted_for_layer(layer);
    if (dropped(tensors_[layer.parts[0]].name)) return add_drop(tensor, "its layer is dropped");
    if (!wanted.layout) return add_copy(tensor, "activation scale of a layer that keeps its codes");
    add_drop(tensor,
             fmt::format("activation scale of {}, not of {}", layer.layout.format->name, wanted.selection.label()));
  }

  struct LayerDecision {
    std::optional<Layout> layout;  // re-encode to this; nothing = keep the codes
    Selection selection;
    bool full_precision_matrix_mult = false;
    std::string reason;
  };

  LayerDecision wanted_for_layer(const Layer& layer) const {
    LayerDecision decision;
    decision.full_precision_matrix_mult = layer.full_precision_matrix_mult;
    const std::string& weight = tensors_[layer.parts[0]].name;
    const size_t component = component_of(components_, weight);
    if (!selected_[component]) {
      decision.reason = "other component";
      return decision;
    }
    const Shape& shape = layer.layout.shape;
    const RuleDecision rule = rules_[component]->decide(weight, shape, true);
    decision.full_precision_matrix_mult |= rule.full_precision_matrix_mult;
    if (!rule.selection) {
      decision.reason = rule.reason;
      return decision;
    }
    decision.selection = *rule.selection;
    if (satisfies(layer.layout, *rule.selection)) {
      decision.reason = "already " + std::string(layer.layout.format->name);
      return decision;
    }
    std::string refusal;
    decision.layout = describe(weight, shape, *rule.selection, refusal);
    decision.reason = decision.layout ? rule.reason : refusal;
    return decision;
  }

  std::optional<Layout> describe(const std::string& tensor, const Shape& shape, const Selection& selection,
                                 std::string& refusal) const {
    auto description =
        selection.format->describe({.shape = shape, .kind = classify_layer(tensor, shape)}, selection.options);
    refusal = selection.label() + ": " + description.refusal;
    return description.layout;
  }

  void consider_layer(size_t tensor, size_t index) {
    const Layer& layer = model_.layers()[index];
    LayerDecision decision = wanted_for_layer(layer);
    PlanRow row = start_row(tensor);
    row.name = layer.name;
    row.layer = index;
    row.shape = layer.layout.shape;
    row.from = label(layer.layout);
    for (size_t i = 1; i < layer.parts.size(); ++i) row.bytes_in += tensors_[layer.parts[i]].bytes;
    row.reason = decision.reason;
    if (decision.layout && fits_memory(row, *decision.layout)) {
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
    const RuleDecision rule = rules_[component]->decide(info.name, info.shape, is_float_source(info.dtype));
    if (!rule.selection) return add_copy(tensor, rule.reason);

    PlanRow row = start_row(tensor);
    std::string reason = rule.reason;
    std::string refusal;
    std::optional<Layout> layout = describe(info.name, info.shape, *rule.selection, refusal);
    if (!layout && rule.fallback) {
      layout = describe(info.name, info.shape, *rule.fallback, reason);
      reason = layout ? "fallback, because of " + refusal : refusal + "; fallback " + reason;
    } else if (!layout) {
      reason = refusal;
    }
    if (!layout || !fits_memory(row, *layout))
      return add_copy(tensor, layout ? "a row does not fit --max-memory" : reason);
    if (!layout->format->quantized && layout->tensors[0].dtype == info.dtype)
      return add_copy(tensor, "already " + std::string(name(info.dtype)));
    row.action = Action::encode;
    row.name = layout->format->quantized ? layer_name(info.name) : info.name;
    row.reason = std::move(reason);
    row.layout = std::move(layout);
    finish_layout(row, rule.full_precision_matrix_mult);
    plan_.rows.push_back(std::move(row));
  }

  void finish_layout(PlanRow& row, bool full_precision_matrix_mult) {
    row.to = label(*row.layout);
    if (!row.layout->format->quantized) return;
    row.marker = checkpoint::marker_text(*row.layout, full_precision_matrix_mult);
    const formats::Support& support = row.layout->format->support;
    if (!support.comfyui) not_loadable_.try_emplace(row.layout->format->name, &support).first->second = &support;
  }

  static std::string label(const Layout& layout) { return Selection{layout.format, layout.options}.label(); }

  // Every tile needs at least one granule of rows per thread.
  bool fits_memory(const PlanRow& row, const Layout& layout) const {
    PlanRow probe = row;
    probe.layout = layout;
    probe.action = row.layer == Model::npos ? Action::encode : Action::reencode;
    return tile_shape(model_, probe, 1).total() * static_cast<uint64_t>(plan_.threads) <= plan_.options.max_memory;
  }

  void describe_whole() {
    const auto erase_layer_rows = [&](size_t layer) {
      for (const size_t part : model_.layers()[layer].parts)
        if (part != model_.layers()[layer].parts[0]) add_drop(part, "its layer is dropped");
    };
    for (const size_t layer : dropped_layers_) erase_layer_rows(layer);
    for (const auto& foreign : model_.foreign_layers()) carried_.push_back(foreign);
    if (!model_.foreign_layers().empty())
      plan_.notes.push_back(
          fmt::format("{} layers are in a format that this version does not know; copied as they are.",
                      model_.foreign_layers().size()));
    if (broken_ > 0)
      plan_.warnings.push_back(fmt::format(
          "{} quantized layers do not fit their markers and were copied as they are; see `mezzotint verify`.",
          broken_));
    if (lossy_) plan_.notes.push_back("The source is already quantized: its rounding errors stay in the result.");
    for (size_t i = 0; i < components_.size(); ++i)
      if (selected_[i] && !rules_[i]->detection().known() && plan_.options.preset == "auto")
        plan_.notes.push_back(
            "Unknown architecture: only the rules that hold for every model were used. `--preset NAME` chooses one.");
    for (const auto& [format, support] : not_loadable_)
      plan_.warnings.push_back(fmt::format("ComfyUI cannot load '{}' (loads it: {}). The nearest that it can: '{}'.",
                                           format, support->loaders, support->nearest));
  }

  Plan& plan_;
  const Model& model_;
  const std::vector<io::TensorInfo>& tensors_;
  std::vector<Component> components_;
  std::vector<bool> selected_;
  std::vector<std::unique_ptr<LayerRules>> rules_;  // by component; null where not selected
  std::vector<Regex> drop_;
  std::vector<size_t> dropped_layers_;
  std::map<std::string_view, const formats::Support*> not_loadable_;
  size_t broken_ = 0;
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
  lay_out_output(plan, model, planner.carried_);
  estimate(plan, model);
  return plan;
}

}  // namespace mezzotint::convert
