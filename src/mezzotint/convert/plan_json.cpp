#include <nlohmann/json.hpp>

#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/plan.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::convert {

std::string_view name(Action action) {
  constexpr std::string_view names[] = {"copy", "keep_codes", "encode", "reencode", "correct", "rescale", "drop"};
  return names[static_cast<size_t>(action)];
}

std::string to_json(const Plan& plan) {
  nlohmann::ordered_json root;
  root["input"] = plan.input.string();
  root["output"] = plan.output.string();
  root["preset"] = plan.preset;
  root["preset_reason"] = plan.preset_reason;
  root["component"] = plan.component;
  root["bytes_in"] = plan.bytes_in;
  root["bytes_out"] = plan.layout.total_bytes;
  root["peak_memory"] = plan.peak_memory;
  root["threads"] = plan.threads;
  root["seconds_estimate"] = plan.seconds_estimate;
  root["bits_per_weight"] = plan.bits_per_weight;
  root["quantized_weights"] = plan.quantized_weights;
  root["kept_weights"] = plan.kept_weights;
  root["notes"] = plan.notes;
  root["warnings"] = plan.warnings;
  root["recipe"] = nlohmann::ordered_json::parse(recipe_json(plan.options));
  auto& files = root["files"] = nlohmann::ordered_json::array();
  for (const auto& file : plan.layout.files) files.push_back({{"path", file.path.string()}, {"bytes", file.bytes}});
  auto& rows = root["rows"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : plan.rows) {
    rows.push_back({{"name", row.name},
                    {"action", name(row.action)},
                    {"from", row.from},
                    {"to", row.to},
                    {"reason", row.reason},
                    {"shape", row.shape},
                    {"bytes_in", row.bytes_in},
                    {"bytes_out", row.bytes_out}});
    if (row.merge != nullptr) rows.back()["merged"] = row.merge->patches.size();
    if (row.scale_adapters != nullptr) rows.back()["scale_adapters"] = row.scale_adapters->patches.size();
    if (row.input_adapters != nullptr) rows.back()["input_adapters"] = row.input_adapters->patches.size();
    if (row.smoothing) rows.back()["smoothing"] = *row.smoothing;
    if (row.input_scale && !row.smoothing) rows.back()["input_scale"] = *row.input_scale;
  }
  return root.dump(2);
}

}  // namespace mezzotint::convert
