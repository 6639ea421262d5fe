#include "mezzotint/formats/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "formats/variants.h"
#include "mezzotint/base/error.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/hadamard.h"
#include "mezzotint/kernel/isa.h"
#include "support/seed.h"

/// Products with every format of the table, against the product of the decoded weight in double.
namespace mezzotint::formats {
namespace {

constexpr double kEps = 0x1p-24;

std::vector<float> normals(std::mt19937_64& rng, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  test::detail::normals(rng, values, 1.0f);
  return values;
}

struct Weight {
  Layout layout;
  Parameters parameters;
  std::vector<float> decoded;  ///< [total_rows, cols]
};

Weight weight_of(const Layout& layout, std::mt19937_64& rng) {
  const std::vector<float> values = normals(rng, layout.total_rows() * layout.cols);
  const Tile whole{values.data(), DType::f32, 0, layout.total_rows(), 0, layout.cols, layout.cols};
  Quantized q = quantize(layout, whole, {}, {}, 1);
  Weight w{layout, std::move(q.parameters), {}};
  w.decoded = dequantize(layout, w.parameters, 1);
  return w;
}

/// The product in double, and for every element the sum of magnitudes that bounds scale with.
struct Exact {
  std::vector<double> y, magnitude;
  Exact(const Weight& w, int64_t expert, const std::vector<float>& x, int64_t m, bool transposed) {
    constexpr int64_t kColumns = 8;  // side by side, because one sum waits for its own addition
    const int64_t n = w.layout.rows, k = w.layout.cols;
    const float* weight = w.decoded.data() + expert * n * k;
    const int64_t across = transposed ? k : n, depth = transposed ? n : k;
    y.resize(static_cast<size_t>(m * across));
    magnitude.resize(y.size());
    std::vector<double> panel(static_cast<size_t>(depth * kColumns));
    for (int64_t j0 = 0; j0 < across; j0 += kColumns) {
      const int64_t columns = std::min(kColumns, across - j0);
      for (int64_t d = 0; d < depth; ++d)
        for (int64_t j = 0; j < columns; ++j)
          panel[static_cast<size_t>(d * kColumns + j)] =
              static_cast<double>(transposed ? weight[d * k + j0 + j] : weight[(j0 + j) * k + d]);
      for (int64_t i = 0; i < m; ++i) {
        double sums[kColumns] = {}, sizes[kColumns] = {};
        for (int64_t d = 0; d < depth; ++d) {
          const auto value = static_cast<double>(x[static_cast<size_t>(i * depth + d)]);
          for (int64_t j = 0; j < kColumns; ++j) {
            const double product = value * panel[static_cast<size_t>(d * kColumns + j)];
            sums[j] += product;
            sizes[j] += std::abs(product);
          }
        }
        std::copy_n(sums, columns, y.data() + i * across + j0);
        std::copy_n(sizes, columns, magnitude.data() + i * across + j0);
      }
    }
  }
};

std::vector<float> product_of(const Weight& w, Matmul product, int64_t across, int threads) {
  product.layout = &w.layout;
  product.parameters = &w.parameters;
  std::vector<std::byte> scratch(matmul_scratch_bytes(product, threads));
  std::vector<float> y(static_cast<size_t>(product.x.rows * across), -7.0f);
  matmul(product, {y.data(), DType::f32, across}, scratch, threads);
  return y;
}

/// The largest |error| over its bound. A rotation reorders a group's sums (kernel/hadamard.h), so that an element's
/// error depends on the norms of its row and column instead of on its own products.
double worst(const std::vector<float>& y, const Exact& exact, int64_t depth, bool rotated) {
  double largest = 0, typical = 0;
  for (const double m : exact.magnitude) typical = std::max(typical, m);
  for (size_t i = 0; i < y.size(); ++i) {
    const double size = rotated ? 4 * typical : exact.magnitude[i];
    const double bound = kEps * (static_cast<double>(depth) + 16) * size + 1e-30;
    largest = std::max(largest, std::abs(static_cast<double>(y[i]) - exact.y[i]) / bound);
  }
  return largest;
}

std::vector<Layout> product_layouts(const Format& format) {
  std::vector<Layout> found;
  for (const Options& options : option_variants(format))
    for (const Shape& shape :
         {Shape{1, 1}, Shape{3, 17}, Shape{40, 64}, Shape{257, 256}, Shape{128, 256}, Shape{384, 512}})
      if (auto description = format.describe({shape, LayerKind::linear}, options); description.layout)
        found.push_back(*description.layout);
  for (const Shape& shape : {Shape{3, 64, 128}, Shape{2, 128, 256}})
    if (auto description = format.describe({shape, LayerKind::expert_bank}, complete_options(format, {}));
        description.layout && description.layout->experts > 1)
      found.push_back(*description.layout);
  return found;
}

class MatmulTest : public testing::TestWithParam<const Format*> {};

TEST_P(MatmulTest, GivenInputsMeetTheDecodedWeight) {
  auto rng = test::test_rng();
  for (const Layout& layout : product_layouts(*GetParam())) {
    const Weight w = weight_of(layout, rng);
    const int64_t expert = layout.experts - 1;
    for (const int64_t m : {1, 5, 33})
      for (const bool transposed : {false, true}) {
        SCOPED_TRACE(tell(layout) + (transposed ? " transposed" : "") + " M = " + std::to_string(m));
        const int64_t depth = transposed ? layout.rows : layout.cols, across = transposed ? layout.cols : layout.rows;
        const std::vector<float> x = normals(rng, m * depth);
        const Matmul product{.expert = expert, .x = {x.data(), DType::f32, m, depth, depth}, .transposed = transposed};
        std::vector<float> y = product_of(w, product, across, 1);
        const Exact exact(w, expert, x, m, transposed);
        EXPECT_LE(worst(y, exact, depth, layout.transformed), 1.0);
        EXPECT_EQ(y, product_of(w, product, across, 2)) << "two threads";
        // Negative control: one part in a thousand.
        for (float& v : y) v *= 1.001f;
        EXPECT_GT(worst(y, exact, depth, layout.transformed), 1.0);
      }
  }
}

TEST_P(MatmulTest, BiasActivationAndNarrowTypes) {
  auto rng = test::test_rng();
  for (const Layout& layout : product_layouts(*GetParam())) {
    SCOPED_TRACE(tell(layout));
    const Weight w = weight_of(layout, rng);
    const int64_t m = 9, n = layout.rows, k = layout.cols;
    const std::vector<float> values = normals(rng, m * k), bias = normals(rng, n);
    std::vector<uint16_t> x(values.size());
    kernel::cast({values.data(), DType::f32, m, k, k}, DType::bf16, x.data(), k);
    std::vector<float> wide(values.size());
    kernel::cast({x.data(), DType::bf16, m, k, k}, DType::f32, wide.data(), k);
    Matmul product{.layout = &w.layout, .parameters = &w.parameters};
    product.x = {x.data(), DType::bf16, m, k, k};
    product.bias = bias.data();
    product.activation = kernel::Activation::gelu_tanh;
    std::vector<std::byte> scratch(matmul_scratch_bytes(product, 1));
    std::vector<uint16_t> y(static_cast<size_t>(m * n));
    matmul(product, {y.data(), DType::bf16, n}, scratch, 1);
    std::vector<float> got(y.size());
    kernel::cast({y.data(), DType::bf16, m, n, n}, DType::f32, got.data(), n);
    const Exact exact(w, 0, wide, m, false);
    for (size_t i = 0; i < got.size(); ++i) {
      const double v = exact.y[i] + static_cast<double>(bias[i % static_cast<size_t>(n)]);
      const double gelu = 0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
      const double sums = kEps * static_cast<double>(k + 64) * (4 * exact.magnitude[i] + std::abs(v) + 1);
      ASSERT_NEAR(static_cast<double>(got[i]), gelu, std::abs(gelu) * 0x1p-8 + 2 * sums + 0x1p-20);
    }
  }
}

/// Rounding of the inputs must cost what its codes cost: at most half a step of the largest value of each scale, as a
/// sum of independent errors, and not nothing.
TEST_P(MatmulTest, RuntimeInputsAreRoundedAndNoWorse) {
  auto rng = test::test_rng();
  for (const Layout& layout : product_layouts(*GetParam())) {
    if (layout.cols < 64 || GetParam()->matmul_form == nullptr) continue;
    const Weight w = weight_of(layout, rng);
    const MatmulForm form = GetParam()->matmul_form(w.layout, w.parameters, 0);
    const int64_t m = 17, n = layout.rows, k = layout.cols;
    const std::vector<float> x = normals(rng, m * k);
    Matmul product{.x = {x.data(), DType::f32, m, k, k}, .inputs = Inputs::runtime};
    const Exact exact(w, 0, x, m, false);
    const auto relative = [&](const std::vector<float>& y) {
      double error = 0, size = 0;
      for (size_t i = 0; i < y.size(); ++i) {
        error += std::pow(static_cast<double>(y[i]) - exact.y[i], 2);
        size += exact.y[i] * exact.y[i];
      }
      return std::sqrt(error / size);
    };
    // rms of rounding normal values of up to ~4 sigma: int8 4/127/sqrt(12), e4m3 2^-4/sqrt(3), ...
    const double allowed = form.input == InputCodes::none                                            ? 1e-5
                           : form.input == InputCodes::int8 || form.input == InputCodes::int8_blocks ? 0.016
                           : form.input == InputCodes::int4 || form.input == InputCodes::fp4         ? 0.25
                           : form.input == InputCodes::fp8_e5m2                                      ? 0.075
                                                                                                     : 0.04;
    for (const bool per_tensor : {false, true}) {
      SCOPED_TRACE(tell(layout) + (per_tensor ? " per tensor" : " per row"));
      product.scaling.of = per_tensor ? kernel::FloatScaling::Of::tensor : kernel::FloatScaling::Of::row;
      const std::vector<float> y = product_of(w, product, n, 1);
      const double error = relative(y);
      EXPECT_LE(error, allowed);
      if (form.input != InputCodes::none) {
        EXPECT_GT(error, allowed / 40) << "the inputs were not rounded";
      }
      EXPECT_EQ(y, product_of(w, product, n, 2));
    }
    if (form.input == InputCodes::none || form.input == InputCodes::mx || form.input == InputCodes::int8_blocks)
      continue;
    // A given scale far too small clips everything: it reaches the codes.
    product.scaling = {.of = kernel::FloatScaling::Of::given, .scale = 1e-6f};
    EXPECT_GT(relative(product_of(w, product, n, 1)), 0.5) << tell(layout);
  }
}

/// Integers with integers: what is left is one rounding of the scales' product, one of the result.
TEST(Matmul, ProductOfFourBitCodesIsExact) {
  auto rng = test::test_rng();
  const Selection selection = select_format("convrot_w4a4");  // names a format: the one with 4-bit activations
  for (const Shape& shape : {Shape{40, 256}, Shape{257, 256}, Shape{384, 512}}) {
    const Layout layout = *selection.format->describe({shape, LayerKind::linear}, selection.options).layout;
    SCOPED_TRACE(tell(layout));
    const Weight w = weight_of(layout, rng);
    const MatmulForm form = layout.format->matmul_form(w.layout, w.parameters, 0);
    const int64_t n = layout.rows, k = layout.cols;
    const auto* codes = static_cast<const uint8_t*>(form.codes.data);
    for (const int64_t m : {1, 5, 33}) {
      const std::vector<float> x = normals(rng, m * k);
      const Matmul product{.x = {x.data(), DType::f32, m, k, k}, .inputs = Inputs::runtime};
      const std::vector<float> y = product_of(w, product, n, 2);
      std::vector<float> turned = x;
      kernel::rotate_convrot(turned.data(), m * k, form.rotation);
      int64_t unsigned_differs = 0;
      for (int64_t i = 0; i < m; ++i) {
        const float* row = turned.data() + i * k;
        float amax = 0;
        for (int64_t c = 0; c < k; ++c) amax = std::max(amax, std::abs(row[c]));
        const float scale = amax / 7;
        for (int64_t j = 0; j < n; ++j) {
          int64_t sum = 0, wrong = 0;
          for (int64_t c = 0; c < k; ++c) {
            const int nibble = codes[j * form.codes.stride + c / 2] >> (c % 2 * 4) & 15;
            const auto code = static_cast<int64_t>(std::nearbyint(row[c] / scale));
            sum += code * (nibble > 7 ? nibble - 16 : nibble);
            wrong += code * nibble;
          }
          const float factor = scale * form.row_scale[j];
          ASSERT_EQ(y[static_cast<size_t>(i * n + j)], static_cast<float>(sum) * factor);
          unsigned_differs += wrong != sum;
        }
      }
      EXPECT_GT(unsigned_differs, m * n / 2) << "control: codes without a sign";
    }
  }
}

TEST_P(MatmulTest, TransposedRuntimeProductOfIntegerCodes) {
  auto rng = test::test_rng();
  for (const Layout& layout : product_layouts(*GetParam())) {
    if (layout.rows < 40 || layout.cols < 64 || GetParam()->matmul_form == nullptr) continue;
    SCOPED_TRACE(tell(layout));
    const Weight w = weight_of(layout, rng);
    const int64_t m = 17, n = layout.rows, k = layout.cols;
    const std::vector<float> g = normals(rng, m * n);
    const Matmul product{.x = {g.data(), DType::f32, m, n, n}, .transposed = true, .inputs = Inputs::runtime};
    const std::vector<float> y = product_of(w, product, k, 1);
    const Exact exact(w, 0, g, m, true);
    double error = 0, size = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      error += std::pow(static_cast<double>(y[i]) - exact.y[i], 2);
      size += exact.y[i] * exact.y[i];
    }
    EXPECT_LE(std::sqrt(error / size), 0.02);
    EXPECT_EQ(y, product_of(w, product, k, 2));
  }
}

TEST_P(MatmulTest, TooSmallAScratchIsAnError) {
  auto rng = test::test_rng();
  const auto layouts = product_layouts(*GetParam());
  if (layouts.empty()) return;
  const Weight w = weight_of(layouts.front(), rng);
  const std::vector<float> x = normals(rng, w.layout.cols);
  const Matmul product{
      .layout = &w.layout, .parameters = &w.parameters, .x = {x.data(), DType::f32, 1, w.layout.cols, w.layout.cols}};
  std::vector<std::byte> scratch(matmul_scratch_bytes(product, 1) - 1);
  std::vector<float> y(static_cast<size_t>(w.layout.rows));
  EXPECT_THROW(matmul(product, {y.data(), DType::f32, w.layout.rows}, scratch, 1), Error);
}

INSTANTIATE_TEST_SUITE_P(Formats, MatmulTest, testing::ValuesIn(all_formats().begin(), all_formats().end()),
                         [](const auto& param) { return std::string(param.param->name); });

}  // namespace
}  // namespace mezzotint::formats
