#include "mezzotint/convert/compare.h"

#include <cmath>

#include "support/checkpoint_file.h"
#include "support/seed.h"

namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;

class Compare : public testing::Test {
 protected:
  Comparison run(const RawFile& a, const RawFile& b, int threads = 2) {
    test::write_raw(folder_ / "a.safetensors", a);
    test::write_raw(folder_ / "b.safetensors", b);
    return compare(checkpoint::Model::open(folder_ / "a.safetensors"),
                   checkpoint::Model::open(folder_ / "b.safetensors"), threads);
  }
  test::TemporaryFolder folder_;
};

TEST_F(Compare, MeasuresAgainstSumsWrittenOut) {
  RawFile a, b;
  a.tensors.emplace_back("x.weight", f32_tensor({2, 2}, {1, -2, 3, 0}));
  b.tensors.emplace_back("x.weight", f32_tensor({2, 2}, {1, -2, 3.5f, 0.25f}));
  const Comparison result = run(a, b);
  ASSERT_EQ(result.layers.size(), 1u);
  const LayerError& layer = result.layers[0];
  const double a2 = 1 + 4 + 9, b2 = 1 + 4 + 12.25 + 0.0625, e2 = 0.25 + 0.0625, ab = 1 + 4 + 10.5;
  EXPECT_DOUBLE_EQ(layer.relative_error, std::sqrt(e2 / a2));
  EXPECT_DOUBLE_EQ(layer.sqnr_db, 10 * std::log10(a2 / e2));
  EXPECT_DOUBLE_EQ(layer.cosine, ab / std::sqrt(a2 * b2));
  EXPECT_DOUBLE_EQ(layer.max_error, 0.5);
  EXPECT_EQ(layer.elements, 4u);
  EXPECT_EQ(layer.from, "F32");
  EXPECT_DOUBLE_EQ(result.relative_error, layer.relative_error);
  EXPECT_DOUBLE_EQ(result.worst_sqnr_db, layer.sqnr_db);
}

TEST_F(Compare, QuantizedLayersAreDecoded) {
  RawFile plain;  // what sound_fp8_file() means: every weight 1.0 * 0.5; one element is off by 0.5
  std::vector<float> values(32, 0.5f);
  plain.tensors.emplace_back("a.weight", f32_tensor({4, 8}, values));
  values[17] = 1.0f;
  plain.tensors.emplace_back("b.weight", f32_tensor({4, 8}, values));
  plain.tensors.emplace_back("a.bias", f32_tensor({4}, {1, 2, 3, 4}));
  plain.tensors.emplace_back("norm.weight", f32_tensor({3}, {1, 1, 1}));
  const Comparison result = run(plain, test::sound_fp8_file());
  ASSERT_EQ(result.layers.size(), 2u);
  EXPECT_EQ(result.layers[0].name, "b");
  EXPECT_DOUBLE_EQ(result.layers[0].relative_error, std::sqrt(0.25 / (31 * 0.25 + 1)));
  EXPECT_DOUBLE_EQ(result.layers[0].max_error, 0.5);
  EXPECT_EQ(result.layers[1].relative_error, 0);
  EXPECT_TRUE(std::isinf(result.layers[1].sqnr_db));
  EXPECT_EQ(result.layers[1].cosine, 1);
  EXPECT_EQ(result.identical_tensors, 2u);
  EXPECT_TRUE(result.only_in_a.empty() && result.only_in_b.empty()) << "scales and markers belong to their layer";
}

TEST_F(Compare, IdenticalFilesDifferNowhere) {
  const Comparison result = run(test::sound_fp8_file(), test::sound_fp8_file());
  EXPECT_TRUE(result.layers.empty());
  EXPECT_EQ(result.identical_tensors, 6u);
  EXPECT_EQ(result.relative_error, 0);
  RawFile other = test::sound_fp8_file();
  other.at("a.weight").bytes[3] = '\x39';
  EXPECT_EQ(run(test::sound_fp8_file(), other).layers.size(), 1u);
}

TEST_F(Compare, NamesAndShapes) {
  RawFile a, b;
  a.tensors.emplace_back("only_a", f32_tensor({1}, {1}));
  a.tensors.emplace_back("shape", f32_tensor({2}, {1, 2}));
  b.tensors.emplace_back("shape", f32_tensor({1, 2}, {1, 2}));
  b.tensors.emplace_back("only_b", f32_tensor({0}, {}));
  const Comparison result = run(a, b);
  EXPECT_EQ(result.only_in_a, std::vector<std::string>{"only_a"});
  EXPECT_EQ(result.only_in_b, std::vector<std::string>{"only_b"});
  EXPECT_EQ(result.shape_differs, std::vector<std::string>{"shape"});
  EXPECT_TRUE(result.layers.empty());
}

TEST_F(Compare, NonFiniteElementsAreCountedAndLeftOut) {
  RawFile a, b;
  a.tensors.emplace_back("x", f32_tensor({3}, {1, NAN, 2}));
  b.tensors.emplace_back("x", f32_tensor({3}, {1, 1, INFINITY}));
  const Comparison result = run(a, b);
  ASSERT_EQ(result.layers.size(), 1u);
  EXPECT_EQ(result.layers[0].non_finite, 2u);
  EXPECT_EQ(result.layers[0].relative_error, 0);
}

TEST_F(Compare, EmptyAndZeroTensors) {
  RawFile a, b;
  a.tensors.emplace_back("empty", f32_tensor({0, 4}, {}));
  b.tensors.emplace_back("empty", RawTensor{"BF16", {0, 4}, ""});
  a.tensors.emplace_back("zero", f32_tensor({2}, {0, 0}));
  b.tensors.emplace_back("zero", f32_tensor({2}, {0, 1}));
  const Comparison result = run(a, b);
  ASSERT_EQ(result.layers.size(), 2u);
  EXPECT_EQ(result.layers[0].name, "zero");
  EXPECT_TRUE(std::isinf(result.layers[0].relative_error));
  EXPECT_EQ(result.layers[1].relative_error, 0);
}

TEST_F(Compare, DoesNotDependOnThreads) {
  auto rng = test::test_rng();
  std::normal_distribution<float> normal;
  std::vector<float> x(1 << 21), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = normal(rng);
    y[i] = x[i] + 0.01f * normal(rng);
  }
  RawFile a, b;
  a.tensors.emplace_back("x", f32_tensor({1 << 11, 1 << 10}, x));
  b.tensors.emplace_back("x", f32_tensor({1 << 11, 1 << 10}, y));
  const Comparison one = run(a, b, 1), four = run(a, b, 4);
  EXPECT_EQ(one.layers.at(0).relative_error, four.layers.at(0).relative_error);
  EXPECT_EQ(one.layers.at(0).cosine, four.layers.at(0).cosine);
  EXPECT_NEAR(one.layers.at(0).relative_error, 0.01, 1e-4);
}

}  // namespace
}  // namespace mezzotint::convert
