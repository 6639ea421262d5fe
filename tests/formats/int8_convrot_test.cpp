#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/claims.h"
#include "formats/variants.h"
#include "mezzotint/base/error.h"
#include "support/seed.h"

// int8 codes of weights rotated by ConvRot's matrix, and the files around them (formats.md of the project: 2.1, 4, 5.7
// and the traps 5, 15, 16 and 17).
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

const TensorFacts kWeight{"weight", DType::i8, {256, 512}};
const TensorFacts kRowScale{"weight_scale", DType::f32, {256, 1}};

Layout describe(std::string_view text, const Shape& shape, LayerKind kind = LayerKind::linear) {
  const Selection selection = select_format(text);
  return selection.format->describe({shape, kind}, selection.options).layout.value();
}

TEST(Int8Convrot, MarkerIsWrittenAsTheReferenceWritesIt) {
  EXPECT_EQ(marker_of(describe("int8_convrot", {4, 512})),
            nlohmann::json::parse(R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256,
                                      "per_row": true})"));
  nlohmann::ordered_json object{{"format", "int8_tensorwise"}};
  const Layout layout = describe("int8_convrot:convrot_groupsize=64", {4, 512});
  layout.format->marker(layout, object);
  EXPECT_EQ(object.dump(), R"({"format":"int8_tensorwise","convrot":true,"convrot_groupsize":64,"per_row":true})");
}

TEST(Int8Convrot, ImpliesScalesPerRow) {
  const Layout layout = describe("int8_tensorwise:convrot=true", {6, 512});
  EXPECT_EQ(layout.options, describe("int8_convrot", {6, 512}).options);
  EXPECT_EQ(layout.tensors[1].shape, (Shape{6, 1}));
  EXPECT_TRUE(layout.transformed);
  EXPECT_EQ(layout.note, "");
  EXPECT_TRUE(describe("int8_convrot", {6, 512}, LayerKind::embedding).transformed);
}

TEST(Int8Convrot, LayersThatCannotBeRotatedSayWhy) {
  const Layout odd = describe("int8_convrot", {6, 300});
  EXPECT_FALSE(odd.transformed);
  EXPECT_EQ(odd.note, "not rotated: K = 300 is not a multiple of convrot_groupsize 256");
  EXPECT_EQ(marker_of(odd), nlohmann::json::parse(R"({"format": "int8_tensorwise", "per_row": true})"));
  EXPECT_EQ(odd.options, describe("int8_row", {6, 300}).options);
  const Layout bank = describe("int8_convrot", {2, 6, 512}, LayerKind::expert_bank);
  EXPECT_FALSE(bank.transformed);
  EXPECT_THAT(bank.note, HasSubstr("banks of experts"));
}

TEST(Int8Convrot, OnlyPowersOf4) {
  for (const char* group : {"4", "16", "64", "256", "1024", "4096"})
    EXPECT_NO_THROW(select_format("int8_convrot:convrot_groupsize=" + std::string(group)));
  for (const char* group : {"1", "2", "8", "32", "128", "512", "2048", "100", "0", "-4"}) {
    try {
      select_format("int8_convrot:convrot_groupsize=" + std::string(group));
      ADD_FAILURE() << group;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("4|16|64|256|1024|4096"));
    }
  }
}

TEST(Int8Convrot, RecognisesEveryMarker) {
  const auto of = [](const std::string& marker) { return claim(marker, {kWeight, kRowScale}); };
  const auto plain = of(R"({"format": "int8_tensorwise", "convrot": true})");
  EXPECT_EQ(plain.label, "int8_tensorwise:scaling=row,convrot=true");
  EXPECT_EQ(plain.fit, Fit::labelled);
  EXPECT_EQ(problems(plain), "");
  EXPECT_TRUE(plain.recognition.layout.transformed);
  EXPECT_EQ(plain.recognition.layout.flaw, "");
  const auto small = of(R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 16})");
  EXPECT_EQ(small.label, "int8_tensorwise:scaling=row,convrot=true,convrot_groupsize=16");
  // Without the flag the group size means nothing; a missing flag cannot be noticed.
  const auto without = of(R"({"format": "int8_tensorwise", "convrot_groupsize": 16})");
  EXPECT_EQ(without.label, "int8_tensorwise:scaling=row");
  for (const char* group : {"0", "-256", "3", "100", "16384", "1024", "99999999999"}) {
    const auto found =
        of(R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": )" + std::string(group) + "}");
    EXPECT_EQ(found.fit, Fit::broken) << group;
    EXPECT_THAT(problems(found), HasSubstr("convrot_groupsize"));
  }
  const auto tensor =
      claim(R"({"format": "int8_tensorwise", "convrot": true})", {kWeight, {"weight_scale", DType::f32, {}}});
  EXPECT_EQ(tensor.label, "int8_tensorwise:convrot=true");
  const auto bank = claim(R"({"format": "int8_tensorwise", "convrot": true})",
                          {{"weight", DType::i8, {2, 256, 512}}, {"weight_scale", DType::f32, {2, 256, 1}}});
  EXPECT_EQ(bank.fit, Fit::labelled);
  EXPECT_TRUE(bank.recognition.layout.transformed);
  EXPECT_THAT(bank.recognition.layout.flaw, HasSubstr("bank of experts"));
}

/// The weight that rotated codes mean, from the definition in double.
std::vector<double> rotated_back(const std::vector<std::byte>& codes, const std::vector<float>& scales, int64_t rows,
                                 int64_t cols, int64_t group, bool sylvester) {
  std::vector<double> w(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (int64_t j = 0; j < group; ++j) {
        const int64_t i = c % group;
        int sign = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
        if (!sylvester) {
          sign = 1;
          for (int64_t digit = 1; digit < group; digit *= 4)
            if (i / digit % 4 + j / digit % 4 == 3) sign = -sign;
        }
        sum += sign * static_cast<int8_t>(codes[static_cast<size_t>(r * cols + c / group * group + j)]);
      }
      w[static_cast<size_t>(r * cols + c)] =
          sum * static_cast<double>(scales[static_cast<size_t>(r)]) / std::sqrt(static_cast<double>(group));
    }
  return w;
}

// convert_to_quant takes Sylvester's matrix for powers of two that are none of 4; ComfyUI cannot run the result.
TEST(Int8Convrot, DecodesTheMatrixThatTheGroupSizeMeans) {
  auto rng = test::test_rng();
  for (const int64_t group : {2, 4, 8, 32, 64, 128, 256, 512}) {
    const int64_t rows = 3, cols = 512;
    const auto found =
        claim(R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": )" + std::to_string(group) + "}",
              {{"weight", DType::i8, {rows, cols}}, {"weight_scale", DType::f32, {rows, 1}}});
    ASSERT_EQ(found.fit, Fit::labelled);
    const bool sylvester = std::countr_zero(static_cast<uint64_t>(group)) % 2 != 0;
    EXPECT_EQ(found.recognition.layout.flaw.empty(), !sylvester);
    if (sylvester) {
      EXPECT_THAT(found.recognition.layout.flaw, HasSubstr("no power of 4"));
    }
    std::vector<std::byte> codes(static_cast<size_t>(rows * cols));
    for (auto& code : codes) code = static_cast<std::byte>(rng());
    const std::vector<float> scales = {0.5f, 0.013f, 7.0f};
    Parameters parameters{{codes, std::vector<std::byte>(12)}};
    std::memcpy(parameters.tensors[1].data(), scales.data(), 12);
    const std::vector<float> values = dequantize(found.recognition.layout, parameters, 1);
    for (const bool other : {false, true}) {
      const auto expected = rotated_back(codes, scales, rows, cols, group, sylvester != other);
      double worst = 0;
      for (size_t i = 0; i < values.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(values[i]) - expected[i]) /
                                    (static_cast<double>(scales[i / static_cast<size_t>(cols)]) * 128 *
                                     std::sqrt(static_cast<double>(group))));
      // 12 roundings of sums that are at most 128 sqrt(group) scales large; the other matrix is far off.
      if (!other) {
        EXPECT_LT(worst, 12 * 0x1p-24) << group;
      } else if (group > 2) {
        EXPECT_GT(worst, 1e-3) << group;
      }
    }
  }
}

}  // namespace
}  // namespace mezzotint::formats
