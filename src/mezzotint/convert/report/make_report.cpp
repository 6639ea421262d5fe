#include "mezzotint/convert/report/make_report.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "mezzotint/base/version.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/inspect.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/convert/report/command.h"
#include "mezzotint/kernel/isa.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Layer;
using checkpoint::Model;
using checkpoint::Role;

std::string without_weight(const std::string& name, const Shape& shape) {
  return shape.size() >= 2 ? checkpoint::layer_name(name) : name;
}

void add_program(Report& report) {
  report.version = kVersion;
  report.isa = name(kernel::active_isa());
}

// What a recipe says that findings and the page need.
void add_recipe(Report& report, std::string recipe) {
  report.recipe = std::move(recipe);
  report.command = convert_command(report.recipe, report.input, report.output);
  const auto fields = nlohmann::json::parse(report.recipe, nullptr, false);
  if (!fields.is_object()) return;
  report.effort = ConvertOptions().effort;
  if (fields.contains("effort") && fields["effort"].is_number_integer()) report.effort = fields["effort"].get<int>();
  report.calibrated = fields.contains("calibration");
}

Fate fate_of(Action action, bool measured) {
  switch (action) {
    case Action::copy:
    case Action::keep_codes:
    case Action::correct:
    case Action::rescale:
    case Action::drop:
      return Fate::kept;
    case Action::encode:
    case Action::reencode:
      return measured ? Fate::measured : Fate::unmeasured;
  }
  return Fate::kept;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kListed = 5;
  std::string text;
  for (size_t i = 0; i < std::min(kListed, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
  return names.size() > kListed ? text + ", ..." : text;
}

uint64_t stored_bytes(const Model& model, const Layer& layer) {
  uint64_t bytes = 0;
  for (const size_t part : layer.parts) bytes += model.source().tensors()[part].bytes;
  return bytes;
}

// What was opened, as far as the source still knows: of several shards, their folder.
std::filesystem::path path_of(const Model& model) {
  const auto& files = model.source().files();
  return files.size() == 1 ? files.front() : files.front().parent_path();
}

// A weight, or another tensor, as the comparison names it.
struct Stored {
  std::string name, label;
  Shape shape;
  uint64_t bytes = 0;
};

std::vector<Stored> stored_weights(const Model& model) {
  std::vector<Stored> weights;
  for (size_t i = 0; i < model.source().tensors().size(); ++i) {
    const io::TensorInfo& info = model.source().tensors()[i];
    if (model.role(i) == Role::codes && model.layers()[model.layer_of(i)].consistent) {
      const Layer& layer = model.layers()[model.layer_of(i)];
      weights.push_back({layer.name, formats::Selection{layer.layout.format, layer.layout.options}.label(),
                         layer.layout.shape, stored_bytes(model, layer)});
    } else if (model.role(i) == Role::codes || model.role(i) == Role::plain || model.role(i) == Role::activation) {
      weights.push_back({without_weight(info.name, info.shape), std::string(name(info.dtype)), info.shape, info.bytes});
    }
  }
  return weights;
}

using MeasuredByName = std::map<std::string_view, const MeasuredLayer*>;

// Whether the findings say it anyway, from the numbers.
bool counted(std::string_view warning, const MeasuredByName& measured) {
  if (!warning.ends_with(kNotFinite)) return false;
  const auto layer = measured.find(warning.substr(0, warning.size() - kNotFinite.size()));
  return layer != measured.end() && layer->second->errors.non_finite > 0;
}

}  // namespace

Report make_report(const Plan& plan, const Outcome& outcome, std::span<const MeasuredLayer> measured) {
  Report report;
  report.input = plan.input.string();
  report.output = plan.output.string();
  report.title = fmt::format("{} as {}", plan.input.filename().string(),
                             plan.options.to.empty()             ? "itself, adapters merged"
                             : plan.options.layer_config.empty() ? plan.options.to
                                                                 : "a mix of formats");
  report.bytes_in = plan.bytes_in;
  report.bytes_out = plan.layout.total_bytes;
  report.bits_per_weight = plan.bits_per_weight;
  report.preset = plan.preset;
  report.preset_reason = plan.preset_reason;
  report.threads = plan.threads;
  report.times.emplace_back("conversion", outcome.seconds);
  report.notes = plan.notes;
  for (const auto& text : plan.warnings) report.warnings.push_back({text, {}});
  add_program(report);
  add_recipe(report, recipe_json(plan.options));

  MeasuredByName by_name;
  for (const MeasuredLayer& layer : measured) by_name.emplace(layer.name, &layer);
  for (const PlanRow& row : plan.rows) {
    const auto found = by_name.find(row.name);
    if (row.action == Action::drop || (row.shape.size() < 2 && found == by_name.end())) continue;
    ReportLayer layer;
    layer.name = without_weight(row.name, row.shape);
    layer.fate = fate_of(row.action, found != by_name.end());
    layer.from = row.from;
    layer.to = row.to;
    layer.shape = row.shape;
    layer.bytes_in = row.bytes_in;
    layer.bytes_out = row.bytes_out;
    layer.note = row.reason;
    if (layer.fate == Fate::measured) {
      const MeasuredLayer& seen = *found->second;
      layer.errors = seen.errors;
      layer.optimizer = seen.optimizer;
      layer.objective_ratio = seen.objective_ratio;
      if (!seen.note.empty()) layer.note += (layer.note.empty() ? "" : "; ") + seen.note;
      layer.seconds = seen.seconds;
    }
    report.layers.push_back(std::move(layer));
  }
  for (const auto& text : outcome.warnings)
    if (!counted(text, by_name)) report.warnings.push_back({text, {}});
  return report;
}

Report make_report(const Comparison& comparison, const Model& a, const Model& b) {
  Report report;
  report.conversion = false;
  report.input = path_of(a).string();
  report.output = path_of(b).string();
  report.title = fmt::format("{} against {}", path_of(b).filename().string(), path_of(a).filename().string());
  report.bytes_in = a.source().total_bytes();
  report.bytes_out = b.source().total_bytes();
  report.bits_per_weight = inspect(b).bits_per_weight;
  add_program(report);
  if (auto origin = origin_of(b.source().metadata())) add_recipe(report, std::move(origin->recipe));

  std::map<std::string, Stored, std::less<>> before;
  for (Stored& weight : stored_weights(a)) {
    std::string key = weight.name;
    before.emplace(std::move(key), std::move(weight));
  }
  std::map<std::string, const LayerError*, std::less<>> differing;
  std::vector<std::string> unreadable;
  for (const LayerError& error : comparison.layers) {
    differing.emplace(error.name, &error);
    differing.emplace(checkpoint::layer_name(error.name), &error);
    if (error.elements > 0 && error.errors.elements == 0) unreadable.push_back(error.name);
  }
  for (const Stored& weight : stored_weights(b)) {
    const auto old = before.find(weight.name);
    const auto error = differing.find(weight.name);
    const bool differs = error != differing.end();
    if (old == before.end() || old->second.shape != weight.shape || (!differs && weight.shape.size() < 2)) continue;
    ReportLayer layer;
    layer.name = weight.name;
    layer.from = old->second.label;
    layer.to = weight.label;
    layer.shape = weight.shape;
    layer.bytes_in = old->second.bytes;
    layer.bytes_out = weight.bytes;
    if (differs) {
      layer.errors = error->second->errors;
      const bool readable = layer.errors.elements == error->second->elements;
      layer.fate = readable ? Fate::measured : Fate::unmeasured;
      if (!readable) layer.note = "cannot be read as numbers";
    }
    report.layers.push_back(std::move(layer));
  }

  const auto warn = [&](const char* what, const std::vector<std::string>& names) {
    if (!names.empty()) report.warnings.push_back({fmt::format("{} {}: {}.", names.size(), what, listed(names)), {}});
  };
  warn("tensors are only in the first file", comparison.only_in_a);
  warn("tensors are only in the second file", comparison.only_in_b);
  warn("tensors have other shapes", comparison.shape_differs);
  warn("tensors differ and cannot be read as numbers", unreadable);
  return report;
}

}  // namespace mezzotint::convert
