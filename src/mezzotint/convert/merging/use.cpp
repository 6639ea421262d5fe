#include "mezzotint/convert/merging/use.h"

#include <fmt/format.h>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/components.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/tiles.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

/// The format that stores a dtype as it is.
const formats::Format* plain_format(DType dtype) {
  for (const formats::Format* format : formats::all_formats()) {
    if (format->quantized) continue;
    const auto description =
        format->describe({{1, 1}, formats::LayerKind::other}, formats::complete_options(*format, {}));
    if (description.layout && description.layout->tensors[0].dtype == dtype) return format;
  }
  return nullptr;
}

/// Of a cast to fewer bits: a format with these codes and one scale, which is then 1 and not stored.
std::optional<formats::Layout> cast_layout(DType dtype, const Shape& shape) {
  const int64_t cols = shape.empty() ? 1 : shape.back();
  const Shape matrix{static_cast<int64_t>(element_count(shape).value_or(0)) / std::max<int64_t>(cols, 1), cols};
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->quantized || !format->writable) continue;
    auto description = format->describe({matrix, formats::LayerKind::linear}, formats::complete_options(*format, {}));
    if (!description.layout || description.layout->transformed) continue;
    const std::vector<formats::StoredTensor>& tensors = description.layout->tensors;
    if (tensors.size() == 2 && tensors[0].dtype == dtype && tensors[0].shape == matrix &&
        tensors[1].dtype == DType::f32 && element_count(tensors[1].shape) == 1u)
      return std::move(description.layout);
  }
  return std::nullopt;
}

class MergeAssignment {
 public:
  MergeAssignment(Plan& plan, const Model& model) : plan_(plan), model_(model), row_of_(rows_by_tensor(plan)) {
    if (!plan.options.merge_original.empty())
      plan.original = std::make_shared<const Model>(Model::open(plan.options.merge_original));
  }

  void run() {
    size_t dropped = 0;
    for (const auto& [tensor, merged] : plan_.merge->tensors()) {
      PlanRow& row = plan_.rows[row_of_.at(tensor)];
      if (row.action == Action::drop)
        ++dropped;
      else
        assign(row, merged);
    }
    if (dropped > 0)
      plan_.warnings.push_back(fmt::format("{} tensors that adapters change are dropped (--drop).", dropped));
    if (plan_.original && from_original_ == 0)
      throw Error({.name = "bad-option",
                   .problem = "no layer that an adapter changes is quantized, so no original weights are needed",
                   .file = plan_.options.merge_original,
                   .advice = "Leave the original away, or give the quantized model as the base."});
    if (from_original_ > 0)
      plan_.notes.push_back(fmt::format("{} quantized layers are made anew from {}.", from_original_,
                                        plan_.original->source().files().front().filename().string()));
  }

 private:
  [[noreturn]] void refuse(const char* name, const PlanRow& row, std::string problem, std::string advice) const {
    throw Error({.name = name,
                 .problem = std::move(problem),
                 .file = plan_.input.string(),
                 .tensor = row.name,
                 .advice = std::move(advice)});
  }

  void assign(PlanRow& row, const MergedTensor& merged) {
    row.merge = &merged;
    const bool grows = merged.after != merged.before;
    const std::string patches =
        merged.patches.size() == 1 ? "1 patch" : fmt::format("{} patches", merged.patches.size());
    const bool quantized = row.layer != Model::npos || is_decoded_source(model_.source().tensors()[row.source].dtype);
    if (quantized && plan_.original) use_original(row);
    if (grows && row.layer != Model::npos && !row.original)
      refuse("merge-unsupported", row,
             fmt::format("an adapter enlarges this quantized layer to {}", to_string(merged.after)),
             "Merge it into the unquantized model, and convert that.");
    if (row.action == Action::copy)
      encode_in_place(row, merged);
    else if (row.action == Action::keep_codes)
      keep_format(row);
    else if (grows)
      describe_grown(row, *row.layout->format, merged.after);
    row.reason = (row.reason.empty() ? "" : row.reason + "; ") + "merged: " + patches;
    require_memory(plan_, model_, row);
  }

  void encode_in_place(PlanRow& row, const MergedTensor& merged) {
    const DType dtype = model_.source().tensors()[row.source].dtype;
    if (const formats::Format* format = plain_format(dtype)) {
      describe_grown(row, *format, merged.after);
    } else {
      row.layout = cast_layout(dtype, merged.after);
      row.shape = merged.after;
      row.keeps_format = row.codes_only = true;
      if (!row.layout)
        refuse("merge-unwritable", row, fmt::format("the tensor is plain {}, which is only read", name(dtype)),
               "Give a format to write with --to.");
    }
    row.action = Action::encode;
    row.effort = 0;
  }

  void describe_grown(PlanRow& row, const formats::Format& format, const Shape& shape) const {
    const std::string& tensor = model_.source().tensors()[row.source].name;
    const formats::Options options = row.layout ? row.layout->options : formats::complete_options(format, {});
    auto description = format.describe({shape, classify_layer(tensor, shape)}, options);
    if (!description.layout)
      refuse("merge-unsupported", row, fmt::format("{} cannot hold it: {}", format.name, description.refusal),
             "Keep the layer in its dtype with --exclude.");
    row.layout = std::move(description.layout);
    row.shape = shape;
  }

  void keep_format(PlanRow& row) {
    const formats::Layout& layout = *row.layout;
    if (!layout.format->writable || !layout.flaw.empty())
      refuse("merge-unwritable", row,
             fmt::format("an adapter changes this layer, and its format {} can be read but not written",
                         layout.format->name),
             fmt::format("Give a format to write with --to, for instance {}.", layout.format->support.nearest));
    row.action = row.original ? Action::encode : Action::reencode;
    row.keeps_format = true;
    row.effort = plan_.options.effort;
  }

  /// The float tensor of the same name, or of the same name under another prefix of the same component.
  void use_original(PlanRow& row) {
    const std::string& wanted = model_.source().tensors()[row.source].name;
    const std::vector<io::TensorInfo>& tensors = plan_.original->source().tensors();
    const auto inner = split_component(wanted).inner;
    size_t found = plan_.original->source().find(wanted);
    for (size_t i = 0; i < tensors.size() && found == io::Source::npos; ++i)
      if (split_component(tensors[i].name).inner == inner) found = i;
    const auto fail = [&](std::string problem, std::string seen) {
      throw Error({.name = "no-original",
                   .problem = std::move(problem),
                   .file = plan_.options.merge_original,
                   .tensor = wanted,
                   .found = std::move(seen),
                   .advice = "Give the model that the base was quantized from."});
    };
    if (found == io::Source::npos) fail("the original has no tensor of this name", "");
    if (plan_.original->role(found) != checkpoint::Role::plain || !is_plain_float(tensors[found].dtype))
      fail("the original's tensor is no unquantized float", std::string(name(tensors[found].dtype)));
    if (tensors[found].shape != row.shape)
      fail("the original's tensor has another shape", to_string(tensors[found].shape));
    row.original = {plan_.original.get(), found};
    if (row.action == Action::reencode) row.action = Action::encode;
    row.bytes_in = tensors[found].bytes;
    ++from_original_;
  }

  Plan& plan_;
  const Model& model_;
  std::map<size_t, size_t> row_of_;  // by tensor
  size_t from_original_ = 0;
};

}  // namespace

std::map<size_t, size_t> rows_by_tensor(const Plan& plan) {
  std::map<size_t, size_t> rows;
  for (size_t i = 0; i < plan.rows.size(); ++i) rows.emplace(plan.rows[i].source, i);
  return rows;
}

void require_memory(const Plan& plan, const Model& model, const PlanRow& row) {
  const uint64_t needed = tile_shape(model, row, 1).total();
  if (needed <= plan.options.max_memory) return;
  throw Error({.name = "merge-memory",
               .problem = "what an adapter changes in one piece does not fit the memory bound",
               .file = plan.input.string(),
               .tensor = row.name,
               .advice = fmt::format("Give --max-memory {}MiB or more.", (needed >> 20) + 1)});
}

void use_adapters(Plan& plan, const Model& model) {
  const ConvertOptions& options = plan.options;
  if (options.merge_loras.empty()) {
    if (!options.merge_original.empty() || options.merge_strict)
      throw Error({.name = "bad-option", .problem = "there are no adapters to merge", .advice = "Name their files."});
    return;
  }
  plan.merge = std::make_shared<const Merge>(model, options, plan.notes, plan.warnings);
  MergeAssignment(plan, model).run();
}

}  // namespace mezzotint::convert
