#include "mezzotint/convert/smoothing/assign.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/smoothing/norms.h"
#include "mezzotint/convert/tiles.h"

namespace mezzotint::convert {
namespace {

bool format_carries(const PlanRow& row) {
  const auto companions = row.layout->format->companions;
  return std::find(companions.begin(), companions.end(), checkpoint::kPreQuantScale) != companions.end();
}

class SmoothingAssignment {
 public:
  SmoothingAssignment(Plan& plan, const checkpoint::Model& model, std::span<const size_t> rows)
      : plan_(plan), model_(model), rows_(rows), quantized_(rows.begin(), rows.end()) {
    std::map<size_t, size_t> row_of;  // by tensor
    for (size_t i = 0; i < plan.rows.size(); ++i)
      if (plan.rows[i].action != Action::drop) row_of.emplace(plan.rows[i].source, i);
    for (const auto& [prefix, preset] : plan.presets)
      for (const Norm& norm : find_norms(model.source().tensors(), prefix, *preset)) {
        auto group = std::make_shared<NormGroup>();
        for (const auto& [from, to] : {std::pair(&norm.parts, &group->parts), {&norm.readers, &group->readers}})
          for (const size_t tensor : *from)
            if (const auto found = row_of.find(tensor); found != row_of.end()) to->push_back(found->second);
        if (group->parts.size() != norm.parts.size()) continue;
        for (const size_t reader : group->readers) groups_[reader] = group;
      }
  }

  void run() {
    for (const size_t index : rows_) {
      PlanRow& row = plan_.rows[index];
      const std::string refusal = why_not(index);
      if (!refusal.empty()) {
        row.reason += "; not smoothed: " + refusal;
        if (refused_++ == 0) first_refused_ = row.name + ": " + refusal;
        continue;
      }
      row.smoothing = plan_.options.smooth;
      row.reason += "; smoothed";
      if (!format_carries(row)) give_to_norm(row, groups_.at(index));
    }
    if (refused_ > 0)
      plan_.warnings.push_back(fmt::format("--smooth leaves {} of {} layers as they are (first: {}).", refused_,
                                           rows_.size(), first_refused_));
    if (in_norms_ > 0)
      plan_.warnings.push_back(fmt::format(
          "Norms take over the smoothing factors of {} layers: adapters that were trained on the original do not fit "
          "these. Leave --smooth away if you use such.",
          in_norms_));
  }

 private:
  /// Why a norm cannot take factors, or "".
  std::string why_not_norm(size_t part, int64_t width) const {
    const PlanRow& row = plan_.rows[part];
    const io::TensorInfo& info = model_.source().tensors()[row.source];
    if (row.merge != nullptr) return "is changed by an adapter";
    if (row.action != Action::encode && is_plain_float(info.dtype) && info.shape == Shape{width}) return "";
    return "is not stored as floats that could take them";
  }

  /// Why the inputs of a layer cannot be smoothed whoever takes the factors, or "".
  std::string why_not_at_all(size_t index) const {
    const PlanRow& row = plan_.rows[index];
    if (!quantized_.contains(index)) return "it is not quantized";
    if (row.action == Action::keep_codes) return "its codes stay";
    if (row.keeps_format) return "it keeps its format, and the scales of its inputs";
    if (row.layout->transformed)
      return fmt::format("{} rotates its inputs, and has no place for smoothing factors", row.to);
    if (row.layout->experts != 1) return "a bank of experts has no place for smoothing factors";
    if (row.statistics == nullptr) return "no statistics of its inputs";
    return row.statistics->amax == 0 ? "its inputs were all zero" : "";
  }

  std::string why_not(size_t index) const {
    const PlanRow& row = plan_.rows[index];
    if (std::string reason = why_not_at_all(index); !reason.empty()) return reason;
    if (format_carries(row)) return "";
    const auto found = groups_.find(index);
    if (found == groups_.end())
      return fmt::format("{} has no place for smoothing factors, and no norm in front is known to take them", row.to);
    for (const size_t part : found->second->parts)
      if (const std::string reason = why_not_norm(part, row.layout->cols); !reason.empty())
        return fmt::format("{} has no place for smoothing factors, and {} {}", row.to, plan_.rows[part].name, reason);
    for (const size_t reader : found->second->readers) {
      const PlanRow& other = plan_.rows[reader];
      std::string reason = why_not_at_all(reader);
      if (reason.empty() && other.action == Action::reencode) reason = "its source is quantized";
      if (reason.empty() && format_carries(other)) reason = other.to + " takes the factors itself";
      if (reason.empty() && other.layout->cols != row.layout->cols) reason = "it is not as wide";
      if (!reason.empty())
        return fmt::format(
            "{} has no place for smoothing factors, and the norm in front cannot take them because of "
            "{} ({})",
            row.to, other.name, reason);
    }
    return "";
  }

  void give_to_norm(PlanRow& row, const std::shared_ptr<const NormGroup>& group) {
    row.norm = group;
    row.reason += fmt::format(", factors in {}", plan_.rows[group->parts[0]].name);
    ++in_norms_;
    for (const size_t part : group->parts) {
      PlanRow& norm = plan_.rows[part];
      norm.action = Action::rescale;
      norm.norm = group;
      norm.smoothing = plan_.options.smooth;
      norm.reason = "takes over smoothing factors of the layers that read it";
    }
  }

  Plan& plan_;
  const checkpoint::Model& model_;
  std::span<const size_t> rows_;
  std::set<size_t> quantized_;
  std::map<size_t, std::shared_ptr<const NormGroup>> groups_;  // by reader
  size_t refused_ = 0, in_norms_ = 0;
  std::string first_refused_;
};

}  // namespace

void assign_smoothing(Plan& plan, const checkpoint::Model& model, std::span<const size_t> rows) {
  SmoothingAssignment(plan, model, rows).run();
}

}  // namespace mezzotint::convert
