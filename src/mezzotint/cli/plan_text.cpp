#include "mezzotint/cli/plan_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "mezzotint/base/dtype.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"

namespace mezzotint::cli {
namespace {

std::string target(const convert::PlanRow& row) {
  return row.to.empty() ? "-" : row.to;
}

std::string rows_text(const convert::Plan& plan) {
  Table table({"ACTION", "FROM", "TO", ">SIZE", "NAME", "WHY"});
  for (const auto& row : plan.rows)
    table.add({std::string(name(row.action)), row.from, target(row), size_text(row.bytes_out), row.name, row.reason});
  return table.to_text();
}

/// Why, as far as rows of one group share it: a size budget gives every layer an entry of its own.
std::string shared_reason(const convert::PlanRow& row) {
  return row.reason == fmt::format("layer config '{}'", checkpoint::layer_name(row.name))
             ? "its entry in the layer config"
             : row.reason;
}

std::string groups_text(const convert::Plan& plan) {
  struct Group {
    const convert::PlanRow* first;
    std::string reason;
    size_t rows = 0;
    uint64_t bytes_in = 0, bytes_out = 0;
  };
  std::vector<Group> groups;
  for (const auto& row : plan.rows) {
    const std::string reason = shared_reason(row);
    const auto same = [&](const Group& group) {
      return std::tie(group.first->action, group.first->from, group.first->to, group.reason) ==
             std::tie(row.action, row.from, row.to, reason);
    };
    auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) group = groups.insert(groups.end(), Group{&row, reason});
    ++group->rows;
    group->bytes_in += row.bytes_in;
    group->bytes_out += row.bytes_out;
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.bytes_in > b.bytes_in; });
  Table table({"ACTION", "FROM", "TO", ">TENSORS", ">IN", ">OUT", "WHY", "FIRST"});
  for (const auto& group : groups)
    table.add({std::string(name(group.first->action)), group.first->from, target(*group.first),
               fmt::format("{}", group.rows), size_text(group.bytes_in), size_text(group.bytes_out), group.reason,
               group.first->name});
  return table.to_text();
}

}  // namespace

std::string plan_text(const convert::Plan& plan, bool every_row) {
  std::string text = fmt::format("{} -> {}\n", plan.input.string(), plan.output.string());
  text += fmt::format("architecture: {} ({})\n", plan.preset, plan.preset_reason);
  if (!plan.component.empty()) text += fmt::format("component: {}\n", plan.component);
  text += fmt::format("size: {} -> {} in {} file{}, {:.2f} bits per weight\n", size_text(plan.bytes_in),
                      size_text(plan.layout.total_bytes), plan.layout.files.size(),
                      plan.layout.files.size() == 1 ? "" : "s", plan.bits_per_weight);
  text += fmt::format("buffers: {} with {} threads; about {}\n", size_text(plan.peak_memory), plan.threads,
                      duration_text(plan.seconds_estimate));
  text += "\n" + (every_row ? rows_text(plan) : groups_text(plan));
  if (!plan.notes.empty()) text += "\n";
  for (const auto& note : plan.notes) text += fmt::format("note: {}\n", note);
  return text;
}

}  // namespace mezzotint::cli
