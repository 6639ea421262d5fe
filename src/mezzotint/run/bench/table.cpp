#include "mezzotint/run/bench/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace mezzotint::run::bench {

const Row* Table::find(const std::string& name) const {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
  return found == rows.end() ? nullptr : &*found;
}

double Table::speedup(const Row& row) const {
  return bench::speedup(row.base.turns.empty() ? find("bf16")->timing : row.base, row.timing);
}

bool is_near(double difference, double weight_error) {
  return difference <= std::clamp(1.6 * weight_error, 0.03, 0.24);
}

void print(const Machine& machine) {
  fmt::print("{}, {} cores; {} thread{}; level {}; libtorch {} ({}); device {}\n", machine.processor, machine.cores,
             machine.threads, machine.threads == 1 ? "" : "s", machine.isa, machine.torch, machine.capability,
             machine.device);
}

void print(const Table& table) {
  fmt::print("\n{}: {}", table.model, table.what);
  for (const auto& [name, value] : table.sizes) fmt::print(", {} {}", name, value);
  fmt::print("\n  {:<26} {:>10} {:>10} {:>8} {:>8} {:>9} {:>7} {:>9}\n", "", "ms", "best ms", "speedup", "GOP/s", "MB",
             "memory", "error");
  const Row* base = table.find("bf16");
  for (const Row& row : table.rows) {
    if (!row.problem.empty()) {
      fmt::print("  {:<26} {}\n", row.name, row.problem);
      continue;
    }
    const double ms = row.timing.median();
    fmt::print("  {:<26} {:>10.3f} {:>10.3f} {:>7.2f}x {:>8.0f} {:>9.2f} {:>6.2f}x {:>9.2e}", row.name, ms,
               row.timing.best(), table.speedup(row), table.operations / ms * 1e-6,
               static_cast<double>(row.bytes) * 1e-6, static_cast<double>(base->bytes) / static_cast<double>(row.bytes),
               row.error);
    fmt::print("  {}\n", row.path);
  }
  std::fflush(stdout);
}

nlohmann::ordered_json to_json(const Machine& machine) {
  return {{"processor", machine.processor}, {"cores", machine.cores},
          {"threads", machine.threads},     {"isa", machine.isa},
          {"torch", machine.torch},         {"torch_capability", machine.capability},
          {"device", machine.device}};
}

nlohmann::ordered_json to_json(const Table& table) {
  nlohmann::ordered_json json{{"model", table.model}, {"what", table.what}};
  for (const auto& [name, value] : table.sizes) json[name] = value;
  json["operations"] = table.operations;
  const Row* base = table.find("bf16");
  for (const Row& row : table.rows) {
    nlohmann::ordered_json entry{{"name", row.name}};
    if (!row.problem.empty()) {
      entry["problem"] = row.problem;
      entry["wrong"] = row.wrong;
    } else {
      entry["median_ms"] = row.timing.median();
      entry["best_ms"] = row.timing.best();
      entry["turns"] = row.timing.turns.size();
      entry["speedup_over_bf16"] = table.speedup(row);
      entry["weight_bytes"] = row.bytes;
      entry["memory_ratio"] = static_cast<double>(base->bytes) / static_cast<double>(row.bytes);
      entry["error"] = row.error;
      if (row.weight_error) entry["weight_error"] = *row.weight_error;
      entry["path"] = row.path;
      entry["dequantized"] = row.dequantized;
    }
    json["rows"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace mezzotint::run::bench
