#include "mezzotint/formats/int8_tensorwise/layout.h"

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats {

extern const Format format_int8_tensorwise;

namespace int8_tensorwise {

bool by_row(const Layout& layout) {
  return layout.options.text(kScaling) == "row";
}

Layout layout_of(const LayerFacts& facts, bool by_row, int64_t group) {
  Options options = complete_options(format_int8_tensorwise, {});
  options.set(kScaling, by_row ? "row" : "tensor");
  if (group != 0) {
    options.set(kConvrot, "true");
    options.set(kGroupsize, std::to_string(group));
  }
  Layout layout = matrix_layout(format_int8_tensorwise, facts.shape, options, DType::i8);
  layout.block_rows = by_row ? 1 : 0;
  layout.transformed = group != 0;
  layout.tensors.push_back(
      {"weight_scale", DType::f32, by_row ? per_row_shape(facts.shape) : per_matrix_shape(facts.shape)});
  return layout;
}

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  const Options wanted = complete_options(format_int8_tensorwise, options);
  const bool rotate = wanted.flag(kConvrot);
  const int64_t group = wanted.integer(kGroupsize);
  std::string note;
  if (rotate && facts.kind == LayerKind::expert_bank)
    note = "not rotated: ComfyUI does not undo the rotation in banks of experts";
  else if (rotate && facts.shape.back() % group != 0)
    note = "not rotated: K = " + std::to_string(facts.shape.back()) + " is not a multiple of " +
           std::string(kGroupsize) + " " + std::to_string(group);
  Layout layout = layout_of(facts, rotate || wanted.text(kScaling) == "row", rotate && note.empty() ? group : 0);
  layout.note = std::move(note);
  return {std::move(layout), ""};
}

void transform(const Layout& layout, float* rows, int64_t count, bool) {
  const int64_t group = layout.options.integer(kGroupsize);
  if (kernel::is_convrot_group(group))
    kernel::rotate_convrot(rows, count * layout.cols, group);
  else
    kernel::rotate_sylvester(rows, count * layout.cols, group);
}

}  // namespace int8_tensorwise
}  // namespace mezzotint::formats
