#include "mezzotint/cli/fidelity_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/table.h"

namespace mezzotint::cli {
namespace {

std::vector<std::string> vanished_names(const convert::Fidelity& fidelity) {
  std::vector<std::string> names;
  for (const auto& tensor : fidelity.tensors)
    if (tensor.vanished()) names.push_back(tensor.name);
  return names;
}

}  // namespace

void print_fidelity(const convert::Fidelity& fidelity, size_t top) {
  Table table({"ADAPTERS IN", "A", "B", ">DELTA %", ">GAIN", ">RESIDUAL", ""});
  for (size_t i = 0; i < std::min(top, fidelity.tensors.size()); ++i) {
    const auto& tensor = fidelity.tensors[i];
    if (tensor.measured())
      table.add({tensor.name, tensor.from, tensor.to, fmt::format("{:.4f}", 100 * tensor.delta),
                 fmt::format("{:.4f}", tensor.gain), fmt::format("{:.4f}", tensor.residual), ""});
    else
      table.add({tensor.name, tensor.from, tensor.to, "-", "-", "-", tensor.reason});
  }
  if (!fidelity.tensors.empty() && top > 0) fmt::print("\n{}", table.to_text());
  if (fidelity.tensors.size() > top) fmt::print("... {} more (--top N shows them)\n", fidelity.tensors.size() - top);
  fmt::print(
      "Adapters: gain {:.4f}, residual {:.4f} over {} tensors (1 and 0 = the whole adapter, and nothing else).\n",
      fidelity.gain, fidelity.residual, fidelity.measured);
  const auto lost = vanished_names(fidelity);
  if (lost.empty()) return;
  fmt::print("Less than half of the adapters is left in {} of {} tensors:\n", lost.size(), fidelity.measured);
  for (size_t i = 0; i < std::min(top, lost.size()); ++i) fmt::print("  {}\n", lost[i]);
  if (lost.size() > top) fmt::print("  ... {} more\n", lost.size() - top);
  fmt::print("What helps: {}.\n", convert::kVanishedAdvice);
}

nlohmann::ordered_json fidelity_json(const convert::Fidelity& fidelity) {
  auto tensors = nlohmann::ordered_json::array();
  for (const auto& tensor : fidelity.tensors) {
    const bool measured = tensor.measured();
    const auto value = [&](double x) { return measured ? nlohmann::ordered_json(x) : nlohmann::ordered_json(); };
    tensors.push_back({{"name", tensor.name},
                       {"from", tensor.from},
                       {"to", tensor.to},
                       {"shape", tensor.shape},
                       {"patches", tensor.patches},
                       {"delta", value(tensor.delta)},
                       {"gain", value(tensor.gain)},
                       {"residual", value(tensor.residual)},
                       {"non_finite", tensor.non_finite},
                       {"reason", tensor.reason}});
  }
  const auto lost = vanished_names(fidelity);
  return {{"gain", fidelity.gain},
          {"residual", fidelity.residual},
          {"measured", fidelity.measured},
          {"vanished", lost},
          {"advice", lost.empty() ? "" : convert::kVanishedAdvice},
          {"notes", fidelity.notes},
          {"warnings", fidelity.warnings},
          {"tensors", std::move(tensors)}};
}

}  // namespace mezzotint::cli
