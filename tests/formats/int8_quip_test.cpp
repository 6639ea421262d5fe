#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "formats/claims.h"
#include "mezzotint/formats/driver.h"
#include "support/seed.h"

// Weights stored transformed on both sides, as the QuIP fork of convert_to_quant writes them (formats.md of the
// project: 5.12). What is stored is made here from the definition in double.
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

constexpr const char* kMarker = R"({"format": "int8_tensorwise"})";

double sylvester(int64_t i, int64_t j, int64_t n) {
  const double sign = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
  return sign / std::sqrt(static_cast<double>(n));
}

/// a transformed weight [rows, cols], padded to powers of two, and what it was made of.
struct Stored {
  int64_t rows, cols, padded_rows, padded_cols;
  std::vector<double> weight;  ///< [rows, cols], after smoothing where there is any
  std::vector<float> sign_row, sign_col, scale, smooth;
  std::vector<std::byte> codes;

  Stored(std::mt19937_64& rng, int64_t n, int64_t k, bool row_scales)
      : rows(n),
        cols(k),
        padded_rows(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)))),
        padded_cols(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(k)))) {
    std::normal_distribution<double> normal(0, 0.02);
    weight.resize(static_cast<size_t>(n * k));
    for (double& w : weight) w = normal(rng);
    for (int64_t i = 0; i < padded_rows; ++i) sign_row.push_back((rng() & 1) != 0 ? 1.0f : -1.0f);
    for (int64_t i = 0; i < padded_cols; ++i) sign_col.push_back((rng() & 1) != 0 ? 1.0f : -1.0f);
    const std::vector<double> t = transformed();
    double top = 0;
    codes.resize(t.size());
    for (const double x : t) top = std::max(top, std::abs(x));
    scale.assign(row_scales ? static_cast<size_t>(padded_rows) : 1, static_cast<float>(top / 127));
    for (int64_t i = 0; i < padded_rows; ++i) {
      float& s = scale[row_scales ? static_cast<size_t>(i) : 0];
      if (row_scales) {
        double amax = 0;
        for (int64_t j = 0; j < padded_cols; ++j) amax = std::max(amax, std::abs(t[index(i, j)]));
        s = static_cast<float>(amax / 127);
      }
      for (int64_t j = 0; j < padded_cols; ++j)
        codes[index(i, j)] = static_cast<std::byte>(static_cast<int8_t>(std::lrint(t[index(i, j)] / s)));
    }
  }

  size_t index(int64_t i, int64_t j) const { return static_cast<size_t>(i * padded_cols + j); }

  /// S diag(sign_row) pad(W) diag(sign_col) S.
  std::vector<double> transformed() const {
    std::vector<double> left(codes_count()), both(codes_count());
    for (int64_t i = 0; i < padded_rows; ++i)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c)
          left[index(i, c)] += sylvester(i, r, padded_rows) * static_cast<double>(sign_row[static_cast<size_t>(r)]) *
                               weight[static_cast<size_t>(r * cols + c)] *
                               static_cast<double>(sign_col[static_cast<size_t>(c)]);
    for (int64_t i = 0; i < padded_rows; ++i)
      for (int64_t j = 0; j < padded_cols; ++j)
        for (int64_t c = 0; c < cols; ++c) both[index(i, j)] += left[index(i, c)] * sylvester(c, j, padded_cols);
    return both;
  }
  size_t codes_count() const { return static_cast<size_t>(padded_rows * padded_cols); }

  std::vector<TensorFacts> facts() const {
    std::vector<TensorFacts> list = {{"weight", DType::i8, {padded_rows, padded_cols}},
                                     {"weight_scale", DType::f32, scale.size() == 1 ? Shape{} : Shape{padded_rows, 1}},
                                     {"hadamard_quip", DType::i8, {}},
                                     {"hadamard_size_out", DType::i32, {}},
                                     {"hadamard_size_in", DType::i32, {}},
                                     {"sign_row", DType::f32, {padded_rows}},
                                     {"sign_col", DType::f32, {padded_cols}}};
    if (!smooth.empty()) list.push_back({"smooth_factors", DType::f32, {cols}});
    return list;
  }

  Parameters parameters(const Layout& layout) const {
    const int32_t sizes[] = {static_cast<int32_t>(padded_rows), static_cast<int32_t>(padded_cols)};
    Parameters result;
    for (const StoredTensor& tensor : layout.tensors) {
      const void* from = codes.data();
      if (tensor.suffix == "weight_scale") from = scale.data();
      if (tensor.suffix == "hadamard_quip") from = "\1";
      if (tensor.suffix == "hadamard_size_out") from = &sizes[0];
      if (tensor.suffix == "hadamard_size_in") from = &sizes[1];
      if (tensor.suffix == "sign_row") from = sign_row.data();
      if (tensor.suffix == "sign_col") from = sign_col.data();
      if (tensor.suffix == "smooth_factors") from = smooth.data();
      result.tensors.emplace_back(tensor_bytes(tensor));
      std::memcpy(result.tensors.back().data(), from, result.tensors.back().size());
    }
    return result;
  }
};

/// Relative error of the decoded weight, over its first `cols` columns.
double error_of(const Stored& stored, const Layout& layout, const Parameters& parameters) {
  const std::vector<float> values = dequantize(layout, parameters, 2);
  EXPECT_EQ(values.size(), static_cast<size_t>(layout.rows * layout.cols));
  double error = 0, norm = 0;
  for (int64_t r = 0; r < stored.rows; ++r)
    for (int64_t c = 0; c < stored.cols; ++c) {
      double w = stored.weight[static_cast<size_t>(r * stored.cols + c)];
      if (!stored.smooth.empty()) w /= static_cast<double>(stored.smooth[static_cast<size_t>(c)]);
      error += std::pow(static_cast<double>(values[static_cast<size_t>(r * layout.cols + c)]) - w, 2);
      norm += w * w;
    }
  return std::sqrt(error / norm);
}

// Codes of 8 bits of Gaussian values at absmax / 127 of some hundred: below 1%.
TEST(Int8Quip, DecodesToTheWeight) {
  auto rng = test::test_rng();
  for (const bool row_scales : {true, false})
    for (const auto& [n, k] : {std::pair{64, 128}, {48, 100}, {1, 20}, {33, 1}}) {
      Stored stored(rng, n, k, row_scales);
      auto facts = stored.facts();
      facts.push_back({"bias", DType::bf16, {n}});
      const std::string marker =
          R"({"format": "int8_tensorwise", "orig_shape": [)" + std::to_string(n) + ", " + std::to_string(k) + "]}";
      const Claim found = claim(marker, facts);
      ASSERT_EQ(found.label, "int8_quip") << problems(found);
      EXPECT_EQ(found.fit, Fit::labelled);
      const Layout& layout = found.recognition.layout;
      EXPECT_EQ(layout.shape, (Shape{n, k}));
      Parameters parameters = stored.parameters(layout);
      std::vector<std::string> wrong;
      check_parameters(layout, parameters, wrong);
      EXPECT_EQ(wrong.size(), 0u);
      EXPECT_LT(error_of(stored, layout, parameters), 0.012) << n << " " << k;
      if (n * k < 100) continue;
      // One sign more or less, and it is another weight.
      const size_t at = layout.tensors[2].suffix == "sign_row" ? 2 : 3;
      float flipped = -stored.sign_row[0];
      std::memcpy(parameters.tensors[at].data(), &flipped, sizeof flipped);
      EXPECT_GT(error_of(stored, layout, parameters), 0.05);
    }
}

TEST(Int8Quip, FindsTheShapeWhereTheFileTellsIt) {
  auto rng = test::test_rng();
  Stored stored(rng, 48, 100, true);
  const auto plain = claim(kMarker, stored.facts());
  EXPECT_EQ(plain.recognition.layout.shape, (Shape{64, 128}));
  EXPECT_THAT(plain.recognition.layout.flaw, HasSubstr("padding"));
  EXPECT_LT(error_of(stored, plain.recognition.layout, stored.parameters(plain.recognition.layout)), 0.012);

  stored.smooth.resize(100);
  for (float& s : stored.smooth) s = std::uniform_real_distribution<float>(0.2f, 5)(rng);
  const auto smoothed = claim(kMarker, stored.facts());
  EXPECT_EQ(smoothed.recognition.layout.shape, (Shape{64, 100}));
  EXPECT_THAT(smoothed.recognition.layout.flaw, testing::Not(HasSubstr("padding")));
  EXPECT_LT(error_of(stored, smoothed.recognition.layout, stored.parameters(smoothed.recognition.layout)), 0.03);
}

TEST(Int8Quip, DenseMatricesAndSigns) {
  const Shape shape = {3, 2};
  const auto layer = [&](const Shape& u, const Shape& v) {
    return claim(kMarker, {{"weight", DType::i8, shape},
                           {"weight_scale", DType::f32, {}},
                           {"quip_s_u", DType::f32, u},
                           {"quip_s_v", DType::f32, v}});
  };
  const std::vector<float> u = {1, 2, 0, 0, 1, 0, 0, 0, -1}, v = {0, 1, 1, 3};
  const auto parameters_of = [](const std::vector<float>& left, const std::vector<float>& right) {
    Parameters parameters;
    for (const int code : {1, 2, 3, 4, 5, 6})
      (parameters.tensors.empty() ? parameters.tensors.emplace_back() : parameters.tensors[0])
          .push_back(static_cast<std::byte>(code));
    for (const std::vector<float>& values : {std::vector<float>{0.5f}, left, right}) {
      auto& bytes = parameters.tensors.emplace_back(values.size() * 4);
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    return parameters;
  };
  const auto dense = layer({3, 3}, {2, 2});
  ASSERT_EQ(dense.label, "int8_quip") << problems(dense);
  // U [1 2; 3 4; 5 6] = [7 10; 3 4; -5 -6]; times V^T = [0 1; 1 3].
  EXPECT_EQ(dequantize(dense.recognition.layout, parameters_of(u, v), 1),
            (std::vector<float>{5.0f, 18.5f, 2.0f, 7.5f, -3.0f, -11.5f}));
  const auto signs = layer({3}, {2});
  EXPECT_EQ(dequantize(signs.recognition.layout, parameters_of({1, -1, 1}, {-1, 1}), 1),
            (std::vector<float>{-0.5f, 1.0f, 1.5f, -2.0f, -2.5f, 3.0f}));
  EXPECT_EQ(layer({3, 3}, {3, 2}).fit, Fit::broken);
}

TEST(Int8Quip, IsOnlyReadAndSaysWhatIsWrong) {
  const Selection selection = select_format("int8_quip");
  EXPECT_FALSE(selection.format->writable);
  EXPECT_THAT(selection.format->describe({{64, 64}, LayerKind::linear}, {}).refusal, HasSubstr("only read"));
  auto rng = test::test_rng();
  const Stored stored(rng, 16, 32, true);
  for (size_t i = 0; i < stored.facts().size(); ++i) {
    auto facts = stored.facts();
    facts[i].shape = {5, 7};
    EXPECT_EQ(claim(kMarker, facts).fit, Fit::broken) << facts[i].suffix;
    if (i != 1 && i < 5) continue;
    facts.erase(facts.begin() + static_cast<int64_t>(i));
    const Claim missing = claim(kMarker, facts);
    EXPECT_EQ(missing.fit, Fit::broken);
    EXPECT_THAT(problems(missing), HasSubstr("is missing"));
  }
  const Layout layout = claim(kMarker, stored.facts()).recognition.layout;
  Parameters parameters = stored.parameters(layout);
  for (size_t i = 2; i < parameters.tensors.size(); ++i) {
    if (layout.tensors[i].suffix == "hadamard_quip") continue;
    Parameters wrong = parameters;
    const float half = 0.5f;
    std::memcpy(wrong.tensors[i].data(), &half, sizeof half);
    std::vector<std::string> found;
    check_parameters(layout, wrong, found);
    EXPECT_EQ(found.size(), 1u) << layout.tensors[i].suffix;
  }
}

// With QuIP the factors are written although the stored weight does not have them any more.
TEST(Int8Quip, FactorsBesideAPlainWeightAreIgnored) {
  const auto found = claim(kMarker, {{"weight", DType::i8, {256, 512}},
                                     {"weight_scale", DType::f32, {256, 1}},
                                     {"smooth_factors", DType::f32, {512}}});
  EXPECT_EQ(found.label, "int8_tensorwise:scaling=row");
  EXPECT_EQ(found.fit, Fit::labelled);
  EXPECT_EQ(problems(found), "");
}

}  // namespace
}  // namespace mezzotint::formats
