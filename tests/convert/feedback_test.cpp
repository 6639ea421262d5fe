#include <gtest/gtest.h>

#include "convert/feedback_case.h"
#include "mezzotint/convert/optimizers/objective.h"

// Rounding with error feedback against GPTQ as its paper writes it, in double, with an inverse and one column after
// another; and against sums taken from the definition.
namespace mezzotint::convert {
namespace {

std::vector<float> weight_gram(const Case& c) {
  const int64_t n = c.layout.cols;
  std::vector<float> gram(static_cast<size_t>(n * n));
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = 0; b < n; ++b) {
      double sum = 0;
      for (int64_t r = 0; r < c.layout.rows; ++r)
        sum += static_cast<double>(c.w[static_cast<size_t>(r * n + a)]) *
               static_cast<double>(c.w[static_cast<size_t>(r * n + b)]);
      gram[static_cast<size_t>(a * n + b)] = static_cast<float>(sum);
    }
  return gram;
}

/// GPTQ (Frantar et al. 2022, algorithm 1): columns in the order `order`, errors pushed on by the inverse of what is
/// left of H. Per-row int8 scales; values of codes.
std::vector<float> gptq(const Case& c, const std::vector<float>& gram, double damping, std::vector<int64_t> order) {
  const int64_t n = c.layout.cols;
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(gram[static_cast<size_t>(i * n + i)]);
  mean /= static_cast<double>(n);
  std::vector<double> inverse(static_cast<size_t>(n * n)), h(inverse.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const auto from = static_cast<size_t>(order[static_cast<size_t>(i)] * n + order[static_cast<size_t>(j)]);
      h[static_cast<size_t>(i * n + j)] = static_cast<double>(gram[from]) / mean + (i == j ? damping : 0.0);
      inverse[static_cast<size_t>(i * n + j)] = i == j;
    }
  for (int64_t p = 0; p < n; ++p) {  // Gauss-Jordan; H is positive definite
    const double pivot = h[static_cast<size_t>(p * n + p)];
    for (int64_t j = 0; j < n; ++j) {
      h[static_cast<size_t>(p * n + j)] /= pivot;
      inverse[static_cast<size_t>(p * n + j)] /= pivot;
    }
    for (int64_t i = 0; i < n; ++i) {
      if (i == p) continue;
      const double factor = h[static_cast<size_t>(i * n + p)];
      for (int64_t j = 0; j < n; ++j) {
        h[static_cast<size_t>(i * n + j)] -= factor * h[static_cast<size_t>(p * n + j)];
        inverse[static_cast<size_t>(i * n + j)] -= factor * inverse[static_cast<size_t>(p * n + j)];
      }
    }
  }
  std::vector<double> w(c.w.begin(), c.w.end());
  std::vector<float> q(w.size());
  const auto* scales = reinterpret_cast<const float*>(c.parameters.tensors[1].data());
  for (int64_t k = 0; k < n; ++k) {
    const int64_t column = order[static_cast<size_t>(k)];
    const double d = inverse[static_cast<size_t>(k * n + k)];
    for (int64_t r = 0; r < c.layout.rows; ++r) {
      const auto at = static_cast<size_t>(r * n + column);
      const auto scale = static_cast<double>(scales[r]);
      const double code = std::clamp(std::nearbyint(w[at] / scale), -127.0, 127.0);
      q[at] = static_cast<float>(code * scale);
      const double error = (w[at] - code * scale) / d;
      for (int64_t j = k + 1; j < n; ++j)
        w[static_cast<size_t>(r * n + order[static_cast<size_t>(j)])] -=
            error * inverse[static_cast<size_t>(k * n + j)];
    }
    for (int64_t i = k + 1; i < n; ++i)  // take column k out of the inverse
      for (int64_t j = k + 1; j < n; ++j)
        inverse[static_cast<size_t>(i * n + j)] -=
            inverse[static_cast<size_t>(i * n + k)] * inverse[static_cast<size_t>(k * n + j)] / d;
  }
  return q;
}

TEST(Feedback, IsGptqWithoutData) {
  const Case c("int8_row", 24, 300);
  const std::vector<float> gram = weight_gram(c);
  std::vector<int64_t> order(300);
  std::iota(order.begin(), order.end(), 0);
  const std::vector<float> expected = gptq(c, gram, 0.3, order);
  const RoundedLayer got = round_layer(c.layout, c.parameters, c.w.data(), nullptr, {}, 1);
  // Sums that differ in the last place move codes that were near a tie.
  EXPECT_LT(share_different(got.values, expected), 0.005);
  EXPECT_NEAR(got.sums.rounded, energy(c, expected, gram, 0.3), 0.01 * got.sums.rounded);
  const std::vector<float> plain = c.stored(c.w);
  EXPECT_GT(share_different(plain, expected), 0.05);
}

TEST(Feedback, IsGptqWithActOrder) {
  const Case c("int8_row", 24, 200);
  std::vector<float> gram = correlated_gram(200);
  for (int64_t i = 0; i < 200; ++i)  // a few loud channels
    for (int64_t j = 0; j < 200; ++j)
      gram[static_cast<size_t>(i * 200 + j)] *= (i % 17 == 0 ? 5.0f : 1.0f) * (j % 17 == 0 ? 5.0f : 1.0f);
  std::vector<int64_t> order(200);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return gram[static_cast<size_t>(a * 201)] > gram[static_cast<size_t>(b * 201)];
  });
  const std::vector<float> expected = gptq(c, gram, 0.01, order);
  const RoundedLayer got =
      round_layer(c.layout, c.parameters, c.w.data(), gram.data(), {.moments = Moments::inputs, .damping = 0.01}, 1);
  EXPECT_LT(share_different(got.values, expected), 0.01);
  EXPECT_NEAR(got.sums.rounded, energy(c, expected, gram, 0.01), 0.02 * got.sums.rounded);
}

struct RowsAndCols {
  int64_t rows, cols;
};

class EveryFormat : public testing::TestWithParam<std::string> {};

TEST_P(EveryFormat, LowersTheObjectiveAndKeepsItsPromises) {
  for (const RowsAndCols shape : {RowsAndCols{40, 300}, RowsAndCols{128, 512}, RowsAndCols{128, 1280}}) {
    const formats::Selection selection = formats::select_format(GetParam());
    const auto description =
        selection.format->describe({{shape.rows, shape.cols}, formats::LayerKind::linear}, selection.options);
    if (!description.layout) continue;
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.cols);
    const Case c(GetParam(), shape.rows, shape.cols);
    const std::vector<float> gram = correlated_gram(shape.cols);
    const std::vector<float> plain = c.stored(c.w);
    ObjectiveOptions options{.moments = Moments::inputs, .damping = 0.01};
    const RoundedLayer ldlq = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), options, 1);
    options.sweeps = 2;
    const RoundedLayer descended = round_layer(c.layout, c.parameters, c.w.data(), gram.data(), options, 1);

    // The values are those of codes: the format makes these codes of them.
    for (const RoundedLayer* layer : {&ldlq, &descended}) {
      const std::vector<float> stored = c.stored(layer->values);
      EXPECT_EQ(share_different(stored, layer->values), 0.0);
      const double truth = energy(c, stored, gram, 0.01);
      EXPECT_NEAR(layer->sums.rounded, truth, 0.005 * truth);
    }
    const double before = energy(c, plain, gram, 0.01);
    EXPECT_NEAR(ldlq.sums.plain, before, 0.005 * before);
    EXPECT_LT(ldlq.sums.rounded, 0.6 * before);
    EXPECT_LE(descended.sums.rounded, ldlq.sums.rounded * 1.0001);
    EXPECT_EQ(ldlq.sums.rows, shape.rows);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryFormat, testing::ValuesIn(quantized_formats()),
                         [](const auto& format) { return format.param; });

TEST(Feedback, ThreadsAndScratchFilesChangeNoBit) {
  const Case c("nvfp4", 700, 2304, 5);
  const ObjectiveOptions options{.sweeps = 1};
  const RoundedLayer one = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
  const RoundedLayer three = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 3);
  EXPECT_EQ(one.values, three.values);
  EXPECT_EQ(one.sums.rounded, three.sums.rounded);
  const auto path = testing::TempDir() + "feedback_test.scratch";
  const auto scratch = io::platform::File::open_write(path, true);
  const RoundedLayer paged = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 2, &scratch);
  EXPECT_EQ(one.values, paged.values);
  EXPECT_GT(scratch.size(), 4u * 2304 * 2304);
  io::platform::remove(path);
}

TEST(Feedback, WithoutCorrelationItIsPlainRounding) {
  const Case c("float8_e4m3fn", 33, 256);
  std::vector<float> identity(256 * 256);
  for (size_t i = 0; i < 256; ++i) identity[i * 257] = 1.0f;
  const RoundedLayer got = round_layer(c.layout, c.parameters, c.w.data(), identity.data(),
                                       {.moments = Moments::inputs, .damping = 0.01, .sweeps = 1}, 1);
  EXPECT_EQ(share_different(got.values, c.stored(c.w)), 0.0);
  EXPECT_EQ(got.sums.rows_plain, 33);
}

TEST(Feedback, SegmentsAreRoundedApart) {
  const Case c("int8_row", 64, 1536);
  ObjectiveOptions options;
  const RoundedLayer whole = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
  options.segment = 512;
  const RoundedLayer cut = round_layer(c.layout, c.parameters, c.w.data(), nullptr, options, 1);
  EXPECT_NE(whole.values, cut.values);
  // Every third on its own gives the same.
  Case third("int8_row", 64, 512);
  for (int64_t r = 0; r < 64; ++r) std::copy_n(c.w.data() + r * 1536 + 512, 512, third.w.data() + r * 512);
  third.parameters = c.parameters;
  const RoundedLayer alone = round_layer(third.layout, third.parameters, third.w.data(), nullptr, {}, 1);
  std::vector<float> middle(alone.values.size());
  for (int64_t r = 0; r < 64; ++r) std::copy_n(cut.values.data() + r * 1536 + 512, 512, middle.data() + r * 512);
  EXPECT_EQ(share_different(middle, alone.values), 0.0);
}

TEST(Feedback, DampsWhatCannotBeFactored) {
  const Case c("int8_row", 16, 128);
  std::vector<float> gram(128 * 128, 1.0f);  // rank 1, and one direction of negative size
  gram[0] = -3.0f;
  const RoundedLayer got =
      round_layer(c.layout, c.parameters, c.w.data(), gram.data(), {.moments = Moments::inputs, .damping = 0.01}, 1);
  EXPECT_GT(got.damping, 0.01);
}

}  // namespace
}  // namespace mezzotint::convert
