#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "formats/claims.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/common/swizzle.h"
#include "mezzotint/formats/driver.h"
#include "support/awkward.h"
#include "support/seed.h"

// mxfp8 where comfy-kitchen is at fault, where bytes go, and what files of others look like (the spec's sections 3.3,
// 3.4, 5.5, 5.6 and its traps 4, 6, 13, 14, 24).
namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

Layout layout_of(std::string_view format, const Shape& shape, LayerKind kind = LayerKind::linear) {
  const Selection selection = select_format(format);
  return selection.format->describe({shape, kind}, selection.options).layout.value();
}

Quantized run(const Layout& layout, const std::vector<float>& w) {
  return quantize(layout, {w.data(), DType::f32, 0, layout.total_rows(), 0, layout.cols, layout.cols}, {}, {}, 1);
}

/// Scale byte of a block.
int byte_of(const Quantized& q, int64_t row, int64_t block) {
  const int64_t across = round_up_to(q.layout.cols, 32) / 32;
  return static_cast<int>(q.parameters.tensors[1][static_cast<size_t>(swizzle::offset(row, block, across))]);
}

TEST(MxFp8, ExponentIsTheExactCeiling) {
  // ceil(log2(r)) of r = 1, 1 + 1 ulp, ..., 1 + 8 ulp is 0 for the first only. float32 log2 calls all of them 0: the
  // largest value would then saturate.
  const Layout layout = layout_of("mxfp8", {1, 32});
  std::vector<float> w(32, 0.25f);
  float r = 1.0f;
  for (int ulp = 0; ulp <= 8; ++ulp, r = std::nextafter(r, 2.0f)) {
    w[3] = 448.0f * r;
    const Quantized q = run(layout, w);
    const bool above = w[3] / 448.0f > 1.0f;
    EXPECT_EQ(byte_of(q, 0, 0), above ? 128 : 127) << ulp;
    EXPECT_LE(std::fabs(dequantize(layout, q.parameters, 1)[3]), 448.0f);
    EXPECT_EQ(above, ulp != 0);
  }
}

TEST(MxFp8, BytesAreFormulasInEveryBlock) {
  auto rng = test::test_rng();
  size_t blocks = 0;
  for (const Shape& shape : test::awkward_shapes())
    for (const auto& input : test::awkward_inputs()) {
      SCOPED_TRACE(to_string(shape) + " " + input.name);
      const Layout layout = layout_of("mxfp8", shape);
      const std::vector<float> w = test::make_values(input, rng, layout.rows, layout.cols);
      const Quantized q = run(layout, w);
      for (int64_t r = 0; r < layout.rows; ++r)
        for (int64_t c = 0; c < layout.cols; c += 32, ++blocks) {
          float amax = 0;
          bool zeros = true;
          const int64_t end = std::min(c + 32, layout.cols);
          for (int64_t i = c; i < end; ++i) {
            const float x = std::fabs(w[r * layout.cols + i]);
            zeros &= x == 0;
            if (std::isfinite(x)) amax = std::fmax(amax, x);
          }
          int exponent = 0;
          const float ratio = amax / 448.0f;  // of the smallest denormals: 0
          const float mantissa = std::frexp(ratio, &exponent);
          const int b = zeros ? 0 : ratio == 0 ? 1 : std::max(1, exponent + 127 - (mantissa == 0.5f ? 1 : 0));
          ASSERT_EQ(byte_of(q, r, c / 32), b) << r << " " << c;
          for (int64_t i = c; i < end; ++i) {
            const float y = b == 0 ? 0.0f : w[r * layout.cols + i] / std::ldexp(1.0f, b - 127);
            ASSERT_EQ(static_cast<uint32_t>(q.parameters.tensors[0][r * layout.row_bytes + i]),
                      E4m3::encode_saturating(y))
                << r << " " << i;
          }
        }
    }
  EXPECT_GT(blocks, 50000u);
}

TEST(MxFp8, ScaleByteZeroIsForZerosOnly) {
  // comfy-kitchen reads the byte 0 as 0.0, the OCP specification as 2^-127: whoever reads our files gets the same.
  const Layout layout = layout_of("mxfp8", {1, 96});
  std::vector<float> w(96, 0.0f);
  w[0] = -0.0f;
  w[33] = 0x1p-149f;
  w[64] = 3 * 0x1p-126f;
  const Quantized q = run(layout, w);
  EXPECT_EQ(byte_of(q, 0, 0), 0);
  EXPECT_EQ(byte_of(q, 0, 1), 1);
  EXPECT_EQ(byte_of(q, 0, 2), 1);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(q.parameters.tensors[0][i], std::byte{0});
  EXPECT_EQ(dequantize(layout, q.parameters, 1)[64], w[64]);
  // What comfy-kitchen writes for such a block: saturated codes under the byte 0. ComfyUI takes them for 0.
  Quantized theirs = q;
  theirs.parameters.tensors[0][64] = std::byte{0x7E};
  theirs.parameters.tensors[1][swizzle::offset(0, 2, 3)] = std::byte{0};
  EXPECT_EQ(dequantize(layout, theirs.parameters, 1)[64], 0.0f);
}

TEST(MxFp8, PaddingAndShapes) {
  const Layout odd = layout_of("mxfp8", {33, 40});
  EXPECT_EQ(odd.tensors[0].shape, (Shape{64, 64}));
  EXPECT_EQ(odd.tensors[1].dtype, DType::u8);
  EXPECT_EQ(odd.tensors[1].shape, (Shape{128, 4}));
  const Layout bank = layout_of("mxfp8", {3, 33, 136}, LayerKind::expert_bank);
  EXPECT_EQ(bank.tensors[0].shape, (Shape{3, 64, 160}));
  EXPECT_EQ(bank.tensors[1].shape, (Shape{3, 128, 8}));
  std::vector<float> w(33 * 40, 1.0f);
  const Quantized q = run(odd, w);
  for (int64_t r = 0; r < 64; ++r)
    for (int64_t c = 0; c < 64; ++c)
      ASSERT_EQ(q.parameters.tensors[0][r * 64 + c] != std::byte{0}, r < 33 && c < 40) << r << " " << c;
  size_t scales = 0;
  for (const std::byte b : q.parameters.tensors[1]) scales += b != std::byte{0};
  EXPECT_EQ(scales, 33u * 2u);
}

TEST(MxFp8, ExpertsAreLikeWeightsOfTheirOwn) {
  auto rng = test::test_rng();
  const Layout bank = layout_of("mxfp8", {3, 33, 40}, LayerKind::expert_bank), one = layout_of("mxfp8", {33, 40});
  const std::vector<float> w = test::make_values(test::awkward_inputs()[1], rng, 3 * 33, 40);
  const Quantized all = run(bank, w);
  for (size_t e = 0; e < 3; ++e) {
    const Quantized q =
        run(one, {w.begin() + static_cast<int64_t>(e * 33 * 40), w.begin() + static_cast<int64_t>((e + 1) * 33 * 40)});
    for (const size_t t : {0u, 1u})
      EXPECT_EQ(std::memcmp(q.parameters.tensors[t].data(),
                            all.parameters.tensors[t].data() + e * q.parameters.tensors[t].size(),
                            q.parameters.tensors[t].size()),
                0)
          << e << " " << t;
  }
}

TEST(MxFp8, RefusesWhatComfyUiCannotRun) {
  const Selection selection = select_format("mxfp8");
  const auto refusal = [&](const LayerFacts& facts) {
    return selection.format->describe(facts, selection.options).refusal;
  };
  EXPECT_THAT(refusal({{48, 64}, LayerKind::linear, true}), HasSubstr("N = 48 is not a multiple of 32"));
  EXPECT_EQ(refusal({{48, 64}, LayerKind::linear, false}), "");
  EXPECT_EQ(refusal({{64, 48}, LayerKind::linear, true}), "");
  EXPECT_THAT(refusal({{64, 64}, LayerKind::embedding}), HasSubstr("embedding"));
}

const TensorFacts kWeight{"weight", DType::f8_e4m3, {64, 256}};
TensorFacts scale(Shape shape, DType dtype = DType::u8) {
  return {"weight_scale", dtype, std::move(shape)};
}
const std::string kMarker = R"({"format": "mxfp8"})";

TEST(MxFp8, FilesOfOthers) {
  for (const DType dtype : {DType::u8, DType::i8, DType::f8_e8m0})
    for (const Shape& shape : {Shape{128, 8}, Shape{1024}}) {
      const Claim found = claim(kMarker, {kWeight, scale(shape, dtype)});
      EXPECT_EQ(found.label, "mxfp8");
      EXPECT_EQ(static_cast<int>(found.fit), static_cast<int>(Fit::labelled)) << problems(found);
      EXPECT_EQ(problems(found) != "", dtype == DType::f8_e8m0);
    }
  EXPECT_EQ(claim("", {kWeight, scale({128, 8})}).label, "mxfp8");
  EXPECT_EQ(claim("", {kWeight, scale({128, 8}), {"weight_scalar", DType::f32, {}}}).label, "hybrid_mxfp8");
  EXPECT_EQ(claim("", {kWeight, scale({64, 8})}).label, "");
  EXPECT_THAT(problems(claim(kMarker, {kWeight, scale({64, 8})})), HasSubstr("row by row"));
  EXPECT_EQ(static_cast<int>(claim(kMarker, {{"weight", DType::u8, {64, 256}}, scale({128, 8})}).fit),
            static_cast<int>(Fit::broken));
  EXPECT_EQ(static_cast<int>(claim(kMarker, {{"weight", DType::f8_e4m3, {48, 256}}, scale({128, 8})}).fit),
            static_cast<int>(Fit::broken));
  const Claim mislabelled = claim(R"({"format": "hybrid_mxfp8"})", {kWeight, scale({128, 8})});
  EXPECT_EQ(mislabelled.label, "mxfp8");
  EXPECT_EQ(static_cast<int>(mislabelled.fit), static_cast<int>(Fit::mislabelled));
}

TEST(MxFp8, TheLogicalShapeIsWhatTheFileTells) {
  const auto shape_of = [](const std::string& marker, std::optional<int64_t> bias) {
    std::vector<TensorFacts> tensors{kWeight, scale({128, 8})};
    const auto parsed = nlohmann::json::parse(marker);
    StoredLayer layer{"mxfp8", &parsed, tensors, bias};
    return to_string(select_format("mxfp8").format->recognise(layer).layout.shape);
  };
  EXPECT_EQ(shape_of(kMarker, std::nullopt), "[64, 256]");
  EXPECT_EQ(shape_of(kMarker, 50), "[50, 256]");
  EXPECT_EQ(shape_of(R"({"format": "mxfp8", "orig_shape": [40, 250]})", std::nullopt), "[40, 250]");
  EXPECT_EQ(shape_of(R"({"format": "mxfp8", "orig_shape": [40, 250]})", 41), "[41, 250]");
  for (const char* bad :
       {"[40, 200]", "[10, 250]", "[40]", "40", "[-1, 250]", "[40.5, 250]", "[9223372036854775807, 250]"})
    EXPECT_EQ(shape_of(std::string(R"({"format": "mxfp8", "orig_shape": )") + bad + "}", std::nullopt), "[64, 256]")
        << bad;
}

TEST(MxFp8, VerifyFindsScalesThatAreNotBlocked) {
  const Layout layout = layout_of("mxfp8", {32, 96});
  std::vector<float> w(32 * 96, 1.0f);
  Quantized q = run(layout, w);
  std::vector<std::string> found;
  check_parameters(layout, q.parameters, found);
  EXPECT_TRUE(found.empty());
  std::vector<std::byte> rows(512);  // the same scales, row by row
  for (size_t i = 0; i < 32 * 3; ++i) rows[i] = q.parameters.tensors[1][0];
  q.parameters.tensors[1] = rows;
  check_parameters(layout, q.parameters, found);
  EXPECT_EQ(found.size(), 1u);
}

}  // namespace
}  // namespace mezzotint::formats
