#pragma once
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/matmul.h"

/// What forms of products (Format::matmul_form) are put together from.
namespace mezzotint::formats::matmul_forms {

/// The stored codes of one expert, without scales.
inline kernel::Operand codes(const Layout& layout, const Parameters& parameters, int64_t expert,
                             kernel::ElementCode code) {
  const std::byte* first = parameters.tensors[0].data() + expert * layout.stored_rows * layout.row_bytes;
  return {first, code, layout.rows, layout.cols, layout.row_bytes, {}};
}

/// Codes under float32 scales in tensors[1], one for every layout.block_rows x layout.block_cols (0 = the whole
/// dimension) of an expert, row-major and without gaps: scales over whole rows become factors of the product, others
/// part of the operand.
inline MatmulForm scaled(const Layout& layout, const Parameters& parameters, int64_t expert, kernel::ElementCode code,
                         InputCodes input) {
  MatmulForm form;
  form.codes = codes(layout, parameters, expert, code);
  form.input = input;
  const int64_t across = layout.block_cols == 0 ? 1 : (layout.cols + layout.block_cols - 1) / layout.block_cols;
  const int64_t down = layout.block_rows == 0 ? 1 : (layout.rows + layout.block_rows - 1) / layout.block_rows;
  const float* first = floats(parameters, 1) + expert * down * across;
  if (layout.block_cols == 0 && layout.block_rows == 0)
    form.scale = first;
  else if (layout.block_cols == 0 && layout.block_rows == 1)
    form.row_scale = first;
  else
    form.codes.scales = {kernel::ScaleCode::f32, first, layout.block_rows, layout.block_cols, across, false};
  return form;
}

}  // namespace mezzotint::formats::matmul_forms
