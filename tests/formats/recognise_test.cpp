#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "formats/claims.h"
#include "mezzotint/base/error.h"
#include "mezzotint/formats/driver.h"

// Files as other programs write them (formats.md of the project: 2.4, 5.7, 5.10, 5.11, and the traps).
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

const TensorFacts kInt8{"weight", DType::i8, {256, 512}};
const TensorFacts kFp8{"weight", DType::f8_e4m3, {256, 512}};
TensorFacts scale(Shape shape, DType dtype = DType::f32) {
  return {"weight_scale", dtype, std::move(shape)};
}

#define EXPECT_FOUND(found, name, expected_fit) \
  EXPECT_EQ((found).label, name);               \
  EXPECT_EQ(static_cast<int>((found).fit), static_cast<int>(expected_fit)) << problems(found)

TEST(Recognise, Int8BlockwiseLabelOverScalesPerRowOrTensor) {
  const auto row = claim(R"({"format": "int8_blockwise", "group_size": 1})", {kInt8, scale({256, 1})});
  EXPECT_FOUND(row, "int8_tensorwise:scaling=row", Fit::mislabelled);
  EXPECT_THAT(problems(row), HasSubstr("The marker says int8_blockwise"));
  const auto tensor = claim(R"({"format": "int8_blockwise", "group_size": 128})", {kInt8, scale({})});
  EXPECT_FOUND(tensor, "int8_tensorwise", Fit::mislabelled);
}

TEST(Recognise, Int8AxiswiseIsScalesPerRow) {
  const auto found = claim(R"({"format": "int8_axiswise"})", {kInt8, scale({256})});
  EXPECT_FOUND(found, "int8_tensorwise:scaling=row", Fit::mislabelled);
  EXPECT_EQ(found.recognition.layout.tensors[1].shape, (Shape{256, 1}));
}

TEST(Recognise, Int8TensorwiseLabelOverBlocks) {
  // convert_to_quant writes this for weights of zeros.
  const auto found = claim(R"({"format": "int8_tensorwise", "per_row": true})", {kInt8, scale({2, 4})});
  EXPECT_FOUND(found, "int8_blockwise", Fit::mislabelled);
}

TEST(Recognise, EveryInt8ScaleShape) {
  const std::string marker = R"({"format": "int8_tensorwise"})";
  EXPECT_FOUND(claim(marker, {kInt8, scale({})}), "int8_tensorwise", Fit::labelled);
  EXPECT_FOUND(claim(marker, {kInt8, scale({256, 1})}), "int8_tensorwise:scaling=row", Fit::labelled);
  EXPECT_EQ(problems(claim(marker, {kInt8, scale({256, 1}, DType::bf16)})), "");
  for (const Shape& shape : {Shape{1}, Shape{1, 1}}) {
    const auto one = claim(marker, {kInt8, scale(shape)});
    EXPECT_FOUND(one, "int8_tensorwise", Fit::labelled);
    EXPECT_THAT(problems(one), HasSubstr("only as []"));
  }
  const auto flat = claim(marker, {kInt8, scale({256})});
  EXPECT_FOUND(flat, "int8_tensorwise:scaling=row", Fit::labelled);
  EXPECT_THAT(problems(flat), HasSubstr("[256, 1]"));
  EXPECT_FOUND(claim(marker, {kInt8, scale({512})}), "int8_tensorwise", Fit::broken);
  EXPECT_FOUND(claim(marker, {kInt8, scale({}, DType::i32)}), "int8_tensorwise", Fit::broken);
}

TEST(Recognise, OneRowWeights) {
  const TensorFacts weight{"weight", DType::i8, {1, 512}};
  EXPECT_FOUND(claim(R"({"format": "int8_tensorwise", "per_row": true})", {weight, scale({1, 1})}),
               "int8_tensorwise:scaling=row", Fit::labelled);
  EXPECT_FOUND(claim(R"({"format": "int8_tensorwise", "per_row": true})", {weight, scale({1})}),
               "int8_tensorwise:scaling=row", Fit::labelled);
  EXPECT_FOUND(claim(R"({"format": "int8_tensorwise"})", {weight, scale({})}), "int8_tensorwise", Fit::labelled);
}

TEST(Recognise, Int8BlocksOfEveryGeometry) {
  EXPECT_FOUND(claim(R"({"format": "int8_blockwise", "group_size": 128})", {kInt8, scale({2, 4})}), "int8_blockwise",
               Fit::labelled);
  EXPECT_FOUND(claim(R"({"format": "int8_blockwise", "group_size": 64})", {kInt8, scale({4, 8})}),
               "int8_blockwise:block_size=64", Fit::labelled);
  EXPECT_FOUND(claim(R"({"format": "int8_blockwise", "group_size": 128})", {kInt8, scale({256, 4, 1})}),
               "int8_blockwise:geometry=row_group", Fit::labelled);
  const auto disagree = claim(R"({"format": "int8_blockwise", "group_size": 32})", {kInt8, scale({4, 8})});
  EXPECT_FOUND(disagree, "int8_blockwise:block_size=64", Fit::labelled);
  EXPECT_THAT(problems(disagree), HasSubstr("group_size is 32"));
  const auto odd = claim(R"({"format": "int8_blockwise", "group_size": 128})", {kInt8, scale({2, 8})});
  EXPECT_FOUND(odd, "int8_blockwise", Fit::broken);
}

TEST(Recognise, ScalesWithoutAMarker) {
  EXPECT_FOUND(claim("", {kInt8, scale({})}), "int8_tensorwise", Fit::unlabelled);
  EXPECT_FOUND(claim("", {kInt8, scale({256, 1})}), "int8_tensorwise:scaling=row", Fit::unlabelled);
  EXPECT_FOUND(claim("", {kInt8, scale({2, 4})}), "int8_blockwise", Fit::unlabelled);
  EXPECT_FOUND(claim("", {kFp8, scale({})}), "float8_e4m3fn", Fit::unlabelled);
  EXPECT_FOUND(claim("", {kInt8}), "", Fit::none);
  EXPECT_FOUND(claim("", {kFp8}), "", Fit::none);
}

TEST(Recognise, Fp8LabelsAndDtypes) {
  const TensorFacts e5m2{"weight", DType::f8_e5m2, {256, 512}};
  const auto swapped = claim(R"({"format": "float8_e4m3fn"})", {e5m2, scale({})});
  EXPECT_FOUND(swapped, "float8_e5m2", Fit::mislabelled);
  EXPECT_FOUND(claim(R"({"format": "float8_e5m2"})", {kFp8, scale({1})}), "float8_e4m3fn", Fit::mislabelled);
  const auto bytes = claim(R"({"format": "float8_e4m3fn"})",
                           {{"weight", DType::u8, {256, 512}}, scale({}), {"input_scale", DType::f32, {}}});
  EXPECT_FOUND(bytes, "float8_e4m3fn", Fit::broken);
  EXPECT_EQ(bytes.recognition.layout.tensors[0].dtype, DType::f8_e4m3);
  EXPECT_THAT(problems(bytes), HasSubstr("instead of reading them as codes"));
  EXPECT_FOUND(claim(R"({"format": "float8_e4m3fn"})", {{"weight", DType::bf16, {256, 512}}, scale({})}),
               "float8_e4m3fn", Fit::broken);
  const auto rows = claim(R"({"format": "float8_e4m3fn"})", {kFp8, scale({512})});
  EXPECT_FOUND(rows, "float8_e4m3fn", Fit::broken);
  EXPECT_THAT(problems(rows), HasSubstr("has one scale"));
  const auto missing = claim(R"({"format": "float8_e4m3fn"})", {kFp8});
  EXPECT_FOUND(missing, "float8_e4m3fn", Fit::broken);
  EXPECT_THAT(problems(missing), HasSubstr("weight_scale is missing"));
}

TEST(Recognise, RotatedAndTransformedWeightsAreNotMisread) {
  EXPECT_FOUND(claim(R"({"format": "int8_tensorwise"})", {kInt8, scale({256, 1}), {"hadamard_quip", DType::i8, {}}}),
               "int8_quip", Fit::broken);
  EXPECT_EQ(claim(R"({"format": "convrot_w4a4"})", {kInt8, scale({256})}).label, "convrot_w4a4");
}

TEST(CanonicalParameter, ConvertsAndRepeats) {
  const float half = 0.5f;
  const auto bytes_of = [](const auto& value) {
    std::vector<std::byte> bytes(sizeof(value));
    std::memcpy(bytes.data(), &value, sizeof(value));
    return bytes;
  };
  const StoredTensor wanted{"weight_scale", DType::f32, {}};
  EXPECT_EQ(canonical_parameter(wanted, DType::bf16, {1}, bytes_of(uint16_t{0x3F00})), bytes_of(half));
  EXPECT_EQ(canonical_parameter(wanted, DType::f16, {1, 1}, bytes_of(uint16_t{0x3800})), bytes_of(half));
  EXPECT_EQ(canonical_parameter(wanted, DType::f64, {}, bytes_of(0.5)), bytes_of(half));
  EXPECT_EQ(canonical_parameter({"weight_scale", DType::f32, {2, 1}}, DType::f32, {}, bytes_of(half)),
            bytes_of(std::array{half, half}));
  EXPECT_EQ(canonical_parameter({"weight_scale", DType::u8, {2}}, DType::f8_e8m0, {2}, bytes_of(uint16_t{0x8180})),
            bytes_of(uint16_t{0x8180}));
  EXPECT_THROW(canonical_parameter(wanted, DType::f32, {2}, bytes_of(std::array{half, half})), Error);
  EXPECT_THROW(canonical_parameter(wanted, DType::i32, {}, bytes_of(1)), Error);
  EXPECT_THROW(canonical_parameter(wanted, DType::f32, {}, bytes_of(uint16_t{1})), Error);
}

}  // namespace
}  // namespace mezzotint::formats
