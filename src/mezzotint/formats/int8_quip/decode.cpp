#include "mezzotint/formats/int8_quip/decode.h"

#include <algorithm>
#include <cassert>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats::int8_quip {
namespace {

/// The stored matrix [rows, cols] in float32, code * scale.
struct Matrix {
  int64_t rows, cols;
  std::vector<float> values;
};

Matrix scaled_codes(const Layout& layout, const Parameters& parameters, const std::byte* codes) {
  Matrix w{layout.stored_rows, layout.row_bytes, {}};
  w.values.resize(static_cast<size_t>(w.rows * w.cols));
  const float* scale = floats(parameters, 1);
  kernel::decode_int8(reinterpret_cast<const int8_t*>(codes), w.rows, w.cols, w.cols,
                      float_count(parameters, 1) == 1 ? kernel::Scales::scalar(scale) : kernel::Scales::per_row(scale),
                      w.values.data(), w.cols);
  return w;
}

/// a * b of row-major matrices [n, n] and [n, cols].
std::vector<float> multiply(const float* a, int64_t n, const std::vector<float>& b, int64_t cols) {
  std::vector<float> product(b.size(), 0.0f);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < n; ++k) {
      const float factor = a[i * n + k];
      const float* from = b.data() + k * cols;
      float* to = product.data() + i * cols;
      for (int64_t j = 0; j < cols; ++j) to[j] += factor * from[j];
    }
  return product;
}

std::vector<float> transposed(const std::vector<float>& w, int64_t rows, int64_t cols) {
  std::vector<float> t(w.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) t[static_cast<size_t>(c * rows + r)] = w[static_cast<size_t>(r * cols + c)];
  return t;
}

/// U w V^T.
void multiply_dense(const float* u, const float* v, Matrix& w) {
  const std::vector<float> left = multiply(u, w.rows, w.values, w.cols);
  const std::vector<float> both = multiply(v, w.cols, transposed(left, w.rows, w.cols), w.rows);
  w.values = transposed(both, w.cols, w.rows);
}

}  // namespace

size_t index_of(const Layout& layout, std::string_view suffix) {
  const auto found = std::find_if(layout.tensors.begin(), layout.tensors.end(),
                                  [&](const StoredTensor& tensor) { return tensor.suffix == suffix; });
  return found == layout.tensors.end() ? 0 : static_cast<size_t>(found - layout.tensors.begin());
}

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  assert(row0 == 0 && rows == layout.rows);
  static_cast<void>(row0);
  Matrix w = scaled_codes(layout, parameters, codes);
  const auto values_of = [&](std::string_view suffix) {
    const size_t index = index_of(layout, suffix);
    return index == 0 ? nullptr : floats(parameters, index);
  };
  const float *sign_row = values_of(kSignRow), *sign_col = values_of(kSignCol);
  const float *u = values_of(kDenseRow), *v = values_of(kDenseCol);
  if (u == nullptr) {
    const int64_t count = w.rows * w.cols;
    kernel::rotate_sylvester(w.values.data(), count, w.cols);
    kernel::rotate_sylvester(w.values.data(), count, w.rows, w.cols);
  } else if (layout.tensors[index_of(layout, kDenseRow)].shape.size() == 2) {
    multiply_dense(u, v, w);
  } else {
    sign_row = u;
    sign_col = v;
  }
  const float* smooth = values_of(kSmooth);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t col = col0 + c;
      float value = w.values[static_cast<size_t>(r * w.cols + col)];
      if (sign_row != nullptr) value *= sign_row[r] * sign_col[col];
      if (smooth != nullptr) value /= smooth[col];
      out[r * out_stride + c] = value;
    }
}

}  // namespace mezzotint::formats::int8_quip
