#include <nlohmann/json.hpp>

#include "mezzotint/convert/budget/budget.h"

namespace mezzotint::convert {

std::string to_json(const Budget& budget) {
  using Json = nlohmann::ordered_json;
  Json root;
  root["bytes"] = budget.bytes;
  root["bits_per_weight"] = budget.bits_per_weight;
  root["error"] = budget.error;
  Json& frontier = root["frontier"] = Json::array();
  for (const FrontierPoint& point : budget.frontier) {
    Json mix = Json::object();
    for (const auto& [format, layers] : point.mix) mix[format] = layers;
    frontier.push_back({{"bytes", point.bytes},
                        {"bits_per_weight", point.bits_per_weight},
                        {"cost", point.cost},
                        {"error", point.error},
                        {"mix", std::move(mix)},
                        {"chosen", point.chosen}});
  }
  Json& layers = root["layers"] = Json::array();
  for (const BudgetLayerChoice& layer : budget.layers) {
    Json entry = {{"name", layer.layer},
                  {"format", layer.format},
                  {"relative_error", layer.relative_error},
                  {"weight", layer.weight}};
    if (!layer.raised_from.empty()) {
      entry["raised_from"] = layer.raised_from;
      entry["raised_error"] = layer.raised_error;
    }
    layers.push_back(std::move(entry));
  }
  return root.dump(2);
}

}  // namespace mezzotint::convert
