#include "mezzotint/formats/common/plain.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/encode.h"

namespace mezzotint::formats {
namespace {

constexpr int64_t element_bytes(DType dtype) {
  return dtype == DType::f32 ? 4 : 2;
}

/// Half a step of the dtype: relative above the smallest normal value, absolute below; and the largest value.
struct Precision {
  double relative, absolute, largest;
};
template <DType D>
constexpr Precision kPrecision = {0, 0, std::numeric_limits<double>::infinity()};
template <>
constexpr Precision kPrecision<DType::bf16> = {0x1p-8, 0x1p-134, Bf16::kMax};
template <>
constexpr Precision kPrecision<DType::f16> = {0x1p-11, 0x1p-25, Fp16::kMax};

}  // namespace

template <DType D>
Description Plain<D>::describe(const Format& format, const LayerFacts& facts, const Options& options) {
  if (element_count(facts.shape).value_or(0) == 0) return {std::nullopt, "it is empty"};
  Layout layout;
  layout.format = &format;
  layout.options = options;
  layout.shape = facts.shape;
  layout.cols = facts.shape.empty() ? 1 : facts.shape.back();
  layout.rows = static_cast<int64_t>(*element_count(facts.shape)) / layout.cols;
  layout.stored_rows = layout.rows;
  layout.row_bytes = layout.cols * element_bytes(D);
  layout.tensors.push_back({"weight", D, facts.shape});
  return {layout, ""};
}

template <DType D>
void Plain<D>::encode(const Layout& layout, const Parameters&, const Tile& tile, const Rounding& rounding,
                      std::byte* codes) {
  std::byte* out = codes + tile.col0 * element_bytes(D);
  if (rounding.mode == Rounding::Mode::nearest_even || D == DType::f32 || tile.dtype == D) {
    kernel::cast(source(tile), D, out, layout.cols);
    return;
  }
  if constexpr (D != DType::f32) {
    std::vector<float> wide(tile.dtype == DType::f32 ? 0 : static_cast<size_t>(tile.cols));
    for (int64_t r = 0; r < tile.rows; ++r) {
      Tile row = tile;
      row.data = static_cast<const std::byte*>(tile.data) + r * tile.row_stride * element_bytes(tile.dtype);
      row.row0 += r;
      row.rows = 1;
      if (!wide.empty()) {
        kernel::cast(source(row), DType::f32, wide.data(), tile.cols);
        row.data = wide.data();
        row.dtype = DType::f32;
      }
      kernel::cast_stochastic(source(row), D, out + r * layout.row_bytes, layout.cols, rounding,
                              element_index(layout, row));
    }
  }
}

template <DType D>
void Plain<D>::decode(const Layout& layout, const Parameters&, int64_t, int64_t rows, int64_t col0, int64_t cols,
                      const std::byte* codes, float* out, int64_t out_stride) {
  kernel::cast({codes + col0 * element_bytes(D), D, rows, cols, layout.cols}, DType::f32, out, out_stride);
}

template <DType D>
void Plain<D>::error_bound(const Layout&, const Parameters&, const Tile& tile, float* bound) {
  constexpr Precision p = kPrecision<D>;
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double x = std::abs(static_cast<double>(values[r * tile.row_stride + c]));
      // Beyond the largest value only the half step before the next one is certain to round down.
      const bool in_range = x <= p.largest;
      bound[r * tile.cols + c] = in_range && std::isfinite(x) ? round_up(std::max(x * p.relative, p.absolute))
                                                              : std::numeric_limits<float>::infinity();
    }
}

template <DType D>
MatmulForm Plain<D>::matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  constexpr auto kCode = D == DType::f32    ? kernel::ElementCode::f32
                         : D == DType::bf16 ? kernel::ElementCode::bf16
                                            : kernel::ElementCode::f16;
  MatmulForm form;
  form.codes = matmul_forms::codes(layout, parameters, expert, kCode);
  return form;
}

template <DType D>
Recognition Plain<D>::recognise(const Format& format, const StoredLayer& layer) {
  Recognition recognition;
  if (!layer.label.empty() || layer.marker != nullptr || layer.tensors[0].dtype != D) return recognition;
  for (const auto& tensor : layer.tensors)
    if (tensor.suffix.starts_with("weight_")) return recognition;
  const auto description = describe(format, {layer.tensors[0].shape, LayerKind::other}, {});
  if (!description.layout) return recognition;
  recognition.fit = Fit::labelled;
  recognition.layout = *description.layout;
  return recognition;
}

template struct Plain<DType::bf16>;
template struct Plain<DType::f16>;
template struct Plain<DType::f32>;

}  // namespace mezzotint::formats
