#include "convert/conversion.h"
#include "mezzotint/convert/compare.h"
#include "mezzotint/convert/edit.h"

// Loaders of nvfp4 multiply a layer's input by its pre_quant_scale, so column k of its weight is what the codes decode
// to, times factor k. Whoever decodes the weight needs the factors, and must not leave them beside other codes.
namespace mezzotint::convert {
namespace {

using test::f32_tensor;
using test::RawFile;
using test::RawTensor;

constexpr int64_t kSmoothedRows = 16, kSmoothedCols = 256;

class Smoothing : public Conversion {
 protected:
  /// Layer "a": arbitrary codes, all block scales 1, global scale 0.5.
  static RawFile nvfp4_file() {
    RawFile file;
    std::string codes(kSmoothedRows * kSmoothedCols / 2, 0);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<char>(i * 167 + i / 128 * 37);
    file.tensors.emplace_back("a.weight", RawTensor{"U8", {kSmoothedRows, kSmoothedCols / 2}, codes});
    std::string scales(128 * kSmoothedCols / 16, 0);  // in tiles of 128 x 4; only the first 16 rows are not padding
    for (size_t tile = 0; tile < scales.size(); tile += 512)
      for (size_t row = 0; row < kSmoothedRows; ++row) scales.replace(tile + row * 16, 4, 4, '\x38');
    file.tensors.emplace_back("a.weight_scale", RawTensor{"F8_E4M3", {128, kSmoothedCols / 16}, scales});
    file.tensors.emplace_back("a.weight_scale_2", f32_tensor({}, {0.5f}));
    file.tensors.emplace_back("a.comfy_quant", test::text_tensor(R"({"format": "nvfp4", "orig_shape": [16, 256]})"));
    return file;
  }
  static float factor(int64_t col) { return 0.25f + 0.125f * static_cast<float>(col % 29); }  // exact in every dtype
  static RawTensor factors(DType dtype, int64_t count = kSmoothedCols) {
    std::vector<float> values;
    for (int64_t k = 0; k < count; ++k) values.push_back(factor(k));
    return {std::string(name(dtype)), {count}, text_of(test::as_source(values, dtype).bytes)};
  }
  static RawFile smoothed_file(DType dtype = DType::bf16) {
    RawFile file = nvfp4_file();
    file.tensors.emplace_back("a.pre_quant_scale", factors(dtype));
    return file;
  }
  /// The weight by the definition of the format; every product is exact.
  static RawTensor weight_of(const RawFile& file, bool smoothed) {
    constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    std::vector<float> values;
    for (int64_t i = 0; i < kSmoothedRows * kSmoothedCols; ++i) {
      const auto byte = static_cast<uint8_t>(file.at("a.weight").bytes[static_cast<size_t>(i / 2)]);
      const int code = i % 2 == 0 ? byte >> 4 : byte & 15;
      const float value = 0.5f * kMagnitudes[code & 7] * (code & 8 ? -1.0f : 1.0f);
      values.push_back(smoothed ? value * factor(i % kSmoothedCols) : value);
    }
    return f32_tensor({kSmoothedRows, kSmoothedCols}, values);
  }
  Comparison compared(const RawFile& a, const RawFile& b) const {
    test::write_raw(folder_ / "a.safetensors", a);
    test::write_raw(folder_ / "b.safetensors", b);
    Comparison result = compare(checkpoint::Model::open(folder_ / "a.safetensors"),
                                checkpoint::Model::open(folder_ / "b.safetensors"), 2);
    std::filesystem::remove(folder_ / "a.safetensors");
    std::filesystem::remove(folder_ / "b.safetensors");
    return result;
  }
  std::set<std::string> verify_errors(const RawFile& file) const {
    test::write_raw(in(), file);
    std::set<std::string> codes;
    for (const auto& finding : checkpoint::verify(checkpoint::Model::open(in())))
      if (finding.severity == checkpoint::Severity::error) codes.insert(std::string(finding.code));
    return codes;
  }
};

TEST_F(Smoothing, FactorsAreMultipliedIntoADecodedWeight) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const RawFile file = smoothed_file(dtype);
    const RawFile after = convert(file, {.to = "fp32", .preset = "none"});
    EXPECT_EQ(after.at("a.weight"), weight_of(file, true));
    EXPECT_EQ(after.tensors.size(), 1u) << "the factors are in the weight now";
    EXPECT_EQ(row(plan_, "a.pre_quant_scale").reason, "multiplied into the weight");
  }
  // Without factors the same codes are another weight.
  const RawFile plain = nvfp4_file();
  EXPECT_EQ(convert(plain, {.to = "fp32", .preset = "none"}).at("a.weight"), weight_of(plain, false));
  EXPECT_NE(weight_of(plain, true), weight_of(plain, false));
}

TEST_F(Smoothing, FactorsComeBeforeTheTargetsOwnTransform) {
  const RawFile file = smoothed_file();
  for (const std::string to : {"int8_row", "int8_convrot", "convrot_w4a4", "asym_w4a8_int8", "float8_e4m3fn"}) {
    SCOPED_TRACE(to);
    for (const int threads : {1, 3}) {
      const RawFile after = convert(file, {.to = to, .preset = "none", .max_memory = 64 << 10}, threads);
      expect_layer(after, "a", quantized(to, weight_of(file, true), "a"));
      EXPECT_EQ(after.find("a.pre_quant_scale"), nullptr);
      EXPECT_NE(text_of(quantized(to, weight_of(file, false), "a").parameters.tensors[0]), after.at("a.weight").bytes);
      expect_sound(out());
    }
  }
}

TEST_F(Smoothing, FactorsStayWithTheirCodes) {
  const RawFile file = smoothed_file();
  for (const bool drop : {false, true}) {
    ConvertOptions options{.to = "nvfp4", .preset = "none"};
    if (drop) options.drop = {"pre_quant"};
    const RawFile after = convert(file, options);
    EXPECT_EQ(after.at("a.weight"), file.at("a.weight"));
    EXPECT_EQ(after.at("a.pre_quant_scale"), file.at("a.pre_quant_scale"));
    EXPECT_EQ(plan_.warnings.size(), drop ? 1u : 0u) << "part of a weight that stays";
    expect_sound(out());
  }
  const auto model = checkpoint::Model::open(in());
  EXPECT_EQ(error_of([&] { edit(model, out(), {.remove_tensors = {"pre_quant"}}, {.overwrite = true}); }),
            "edit-breaks-layer");
}

TEST_F(Smoothing, ComparisonsSeeTheWholeWeight) {
  const RawFile file = smoothed_file();
  RawFile plain;
  plain.tensors.emplace_back("a.weight", weight_of(file, true));
  const Comparison same = compared(file, plain);
  ASSERT_EQ(same.layers.size(), 1u);
  EXPECT_EQ(same.layers[0].relative_error, 0);
  EXPECT_TRUE(same.only_in_a.empty() && same.only_in_b.empty());
  plain.at("a.weight") = weight_of(file, false);
  EXPECT_GT(compared(file, plain).layers.at(0).relative_error, 0.1);

  // Layers of equal codes.
  EXPECT_EQ(compared(file, file).identical_tensors, 4u);  // codes, two scales, factors
  EXPECT_GT(compared(file, nvfp4_file()).layers.at(0).relative_error, 0.1);
  RawFile other = file;
  other.at("a.pre_quant_scale").bytes[1] ^= '\x01';
  EXPECT_GT(compared(file, other).layers.at(0).relative_error, 0);
}

TEST_F(Smoothing, FactorsThatDoNotFitAreAnError) {
  EXPECT_TRUE(verify_errors(smoothed_file()).empty());
  RawFile file = nvfp4_file();
  file.tensors.emplace_back("a.pre_quant_scale", factors(DType::f32, kSmoothedCols - 1));
  EXPECT_EQ(verify_errors(file), std::set<std::string>{"pre-quant-scale-shape"});
  const RawFile after = convert(file, {.to = "int8_row", .preset = "none"});
  EXPECT_EQ(after.at("a.weight"), file.at("a.weight"));
  EXPECT_EQ(after.at("a.pre_quant_scale"), file.at("a.pre_quant_scale"));
  ASSERT_FALSE(plan_.warnings.empty());
  EXPECT_NE(plan_.warnings[0].find("do not fit"), std::string::npos);

  file.at("a.pre_quant_scale") = {"I32", {kSmoothedCols}, std::string(4 * kSmoothedCols, '\1')};
  EXPECT_EQ(verify_errors(file), std::set<std::string>{"pre-quant-scale-dtype"});
  file.at("a.pre_quant_scale") = factors(DType::f32);
  file.at("a.pre_quant_scale").bytes.replace(0, 4, std::string("\0\0\x80\x7f", 4));  // inf
  EXPECT_TRUE(verify_errors(file).contains("non-finite-scale"));
}

// Loaders of other formats read no such tensor: their weight is what the codes say.
TEST_F(Smoothing, OtherFormatsHaveNoFactors) {
  RawFile file = test::sound_fp8_file();
  file.tensors.emplace_back("a.pre_quant_scale", f32_tensor({8}, std::vector<float>(8, 3.0f)));
  const RawFile after = convert(file, {.to = "fp32", .preset = "none"});
  EXPECT_EQ(after.at("a.weight"), f32_tensor({4, 8}, std::vector<float>(32, 0.5f)));
  EXPECT_EQ(after.find("a.pre_quant_scale"), nullptr);
}

}  // namespace
}  // namespace mezzotint::convert
