#include <fmt/format.h>

#include "convert/lora_cases.h"
#include "mezzotint/convert/lora_aware/extremes.h"
#include "mezzotint/convert/recipe.h"

// Scales that allow for adapters (convert --lora; algorithms.md section 3).
namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

const std::string kLayer = "blocks.0.q", kWeight = kLayer + ".weight";

formats::Tile whole(const formats::Layout& layout, const std::vector<float>& values) {
  return {values.data(), DType::f32, 0, layout.total_rows(), 0, layout.cols, layout.cols};
}

std::vector<float> floats_of(const RawTensor& tensor) {
  const Matrix values = plain_values(tensor);
  return {values.begin(), values.end()};
}

/// Parameters of a stored layer, without its codes.
formats::Parameters parameters_of(const formats::Layout& layout, const RawFile& file, const std::string& layer) {
  formats::Parameters parameters = formats::new_parameters(layout);
  for (size_t i = 1; i < layout.tensors.size(); ++i) {
    const std::string& bytes = file.at(layer + "." + layout.tensors[i].suffix).bytes;
    std::memcpy(parameters.tensors[i].data(), bytes.data(), bytes.size());
  }
  return parameters;
}

/// What a file would hold for these values with these scales, as values of the weight.
Matrix stored_values(const formats::Layout& layout, const formats::Parameters& parameters,
                     const std::vector<float>& values) {
  formats::Parameters stored = parameters;
  const std::vector<std::byte> codes = formats::encode(layout, parameters, whole(layout, values), {}, 1);
  stored.tensors[0].resize(codes.size());
  std::copy(codes.begin(), codes.end(), stored.tensors[0].begin());
  const std::vector<float> decoded = formats::dequantize(layout, stored, 1);
  return {decoded.begin(), decoded.end()};
}

double distance(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

class LoraScales : public Merging {
 protected:
  static ConvertOptions aware(const std::string& to, std::vector<MergeLora> loras) {
    ConvertOptions options{.to = to, .preset = "none"};
    options.scale_loras = std::move(loras);
    return options;
  }
  /// Two blocks of which the adapters change the first.
  RawFile two_blocks() {
    RawFile file;
    for (const std::string block : {"blocks.0", "blocks.1"}) {
      file.tensors.emplace_back(block + ".q.weight", weight(rng_, {256, 512}, DType::f32));
      file.tensors.emplace_back(block + ".q.bias", weight(rng_, {256}, DType::f32));
    }
    return file;
  }
  MergeLora random_lora(const std::string& name, double strength = 1) {
    RawFile adapter;
    Lora::random(rng_, 256, 512, 8, 1).write(adapter, kLayer);
    return lora_file(adapter, strength, name);
  }
  /// The float model with adapters merged.
  RawFile merged(const RawFile& file, std::vector<MergeLora> loras) {
    ConvertOptions options = merging(std::move(loras));
    options.merge_dampen = false;
    return convert(file, options);
  }
  std::mt19937_64 rng_ = test_rng();
};

TEST(KeepExtremes, ShowsTheExtremesOfBothInEveryRun) {
  auto rng = test_rng();
  std::normal_distribution<float> normal;
  constexpr int64_t rows = 40, cols = 50;
  size_t same_sign = 0;
  for (const int64_t run : {int64_t{1}, int64_t{16}, cols}) {
    std::vector<float> a(rows * cols), b(a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      const float shift = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 4.0f : -4.0f;
      a[i] = normal(rng) + (run == 16 ? 4.0f * static_cast<float>(i / cols % 3) - 4.0f : shift);
      b[i] = a[i] + normal(rng);
    }
    std::vector<float> out = a;
    keep_extremes(b.data(), rows, cols, run, 1, out.data());
    size_t of_a = 0, of_b = 0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; c += run) {
        const auto first = static_cast<size_t>(r * cols + c),
                   end = static_cast<size_t>(r * cols + std::min(c + run, cols));
        std::vector<float> all, shown;
        size_t lowest = first, highest = first;
        for (size_t i = first; i < end; ++i) {
          EXPECT_TRUE(out[i] == a[i] || out[i] == b[i]);
          (out[i] == a[i] ? of_a : of_b) += 1;
          all.insert(all.end(), {a[i], b[i]});
          shown.push_back(out[i]);
          if (std::min(a[i], b[i]) < std::min(a[lowest], b[lowest])) lowest = i;
          if (std::max(a[i], b[i]) > std::max(a[highest], b[highest])) highest = i;
        }
        const auto [low, high] = std::minmax_element(all.begin(), all.end());
        const auto [shown_low, shown_high] = std::minmax_element(shown.begin(), shown.end());
        EXPECT_EQ(std::max(std::abs(*low), std::abs(*high)), std::max(std::abs(*shown_low), std::abs(*shown_high)));
        if (lowest == highest) continue;  // one element cannot be both
        EXPECT_EQ(*shown_low, *low);
        EXPECT_EQ(*shown_high, *high);
        same_sign += *low * *high > 0;
      }
    if (run > 1) {
      EXPECT_NEAR(static_cast<double>(of_a) / static_cast<double>(of_b), 1, 0.2);
    }
  }
  EXPECT_GT(same_sign, 5u) << "larger magnitudes alone would have done";
  // Three matrices have equal shares; the first column has the extremes of all.
  std::vector<float> shares(3001, 1.0f);
  for (const float k : {2.0f, 3.0f}) {
    std::vector<float> next(shares.size(), k);
    next[0] = 10 * k;
    next[1] = -10 * k;
    keep_extremes(next.data(), 1, 3001, 3001, static_cast<int64_t>(k) - 1, shares.data());
  }
  EXPECT_EQ(shares[0], 30);
  EXPECT_EQ(shares[1], -30);
  for (const float k : {1.0f, 2.0f, 3.0f})
    EXPECT_NEAR(static_cast<double>(std::count(shares.begin(), shares.end(), k)), 1000, 3) << k;
  // What is not finite gives way.
  std::vector<float> a{1, NAN, -3, INFINITY}, b{NAN, 2, INFINITY, 5};
  keep_extremes(b.data(), 1, 4, 4, 1, a.data());
  EXPECT_EQ(a, (std::vector<float>{1, 2, -3, 5}));
}

/// Formats of which every scale is the largest magnitude of what shares it.
const std::vector<std::string> kAbsmax = {"float8_e4m3fn",
                                          "float8_e4m3fn_rowwise",
                                          "float8_e4m3fn_blockwise",
                                          "float8_e4m3fn_block3d",
                                          "float8_e5m2",
                                          "int8_tensorwise",
                                          "int8_row",
                                          "int8_blockwise",
                                          "int8_convrot",
                                          "mxfp8"};

// The definition: the larger of the scales that the weight and the merged weights get by themselves.
TEST_F(LoraScales, AreTheLargestOfTheWeightAndOfEveryMergedOne) {
  const RawFile file = two_blocks();
  const MergeLora a = random_lora("a", 0.2), b = random_lora("b", -0.3);
  const RawFile sources[] = {file, merged(file, {a, b}), merged(file, {a}), merged(file, {b})};
  size_t scales = 0, raised[4] = {};
  for (const std::string& to : kAbsmax) {
    SCOPED_TRACE(to);
    std::vector<RawFile> alone;
    for (const RawFile& source : sources) alone.push_back(convert(source, {.to = to, .preset = "none"}));
    const RawFile got = convert(file, aware(to, {a, b}));
    expect_sound(out());
    EXPECT_EQ(header_layers(got), header_layers(alone[0]));
    const auto layout = layout_of(to, {256, 512}).value();
    const formats::StoredTensor& scale = layout.tensors.at(1);
    const std::string name = kLayer + "." + scale.suffix;
    const auto value = [&](const RawFile& of, size_t i) {
      const std::string& bytes = of.at(name).bytes;
      float x = 0;
      if (scale.dtype != DType::f32) return static_cast<float>(static_cast<uint8_t>(bytes[i]));  // exponents
      std::memcpy(&x, bytes.data() + 4 * i, 4);
      return x;
    };
    const size_t count = got.at(name).bytes.size() / (scale.dtype == DType::f32 ? 4 : 1);
    for (size_t i = 0; i < count; ++i) {
      float largest = 0;
      for (const RawFile& of : alone) largest = std::max(largest, value(of, i));
      EXPECT_EQ(value(got, i), largest) << i;
      ++scales;
      for (size_t k = 0; k < 4; ++k) raised[k] += value(alone[k], i) == largest;
    }
    // Codes are those of the weight by itself on these scales; what no adapter names keeps its bytes.
    const formats::Parameters parameters = parameters_of(layout, got, kLayer);
    const auto codes = formats::encode(layout, parameters, whole(layout, floats_of(file.at(kWeight))), {}, 1);
    EXPECT_TRUE(got.at(kWeight).bytes == text_of(codes));
    EXPECT_NE(got.at(kWeight), alone[0].at(kWeight));
    for (const auto& [tensor, bytes] : alone[0].tensors)
      if (!tensor.starts_with(kLayer)) {
        EXPECT_EQ(bytes, got.at(tensor)) << tensor;
      }
  }
  for (const size_t k : {0, 1, 2, 3}) EXPECT_LT(raised[k], scales) << "one of them would have done";
  EXPECT_GT(raised[3], 0u) << "each adapter alone counts";
}

class LoraScaleErrors : public LoraScales {
 protected:
  void start(const std::vector<float>& w, Lora lora, double share) {
    w_ = w;
    base_.tensors = {{kWeight, test::f32_tensor({kSide, kSide}, w)}};
    lora = of_length(std::move(lora), w, share);
    delta_ = lora.delta();
    wanted_ = sum_of(w, delta_);
    RawFile file;
    lora.write(file, kLayer);
    lora_ = lora_file(file);
  }
  struct Errors {
    double base = 0;   // of the base, relative to it
    double stale = 0;  // of the merged weight where scales stay as they are
    double fresh = 0;  // where they are chosen anew
  };
  /// Merges into what a conversion stored, scales and all, by the library's own codec.
  Errors errors(const std::string& to, bool allow) {
    const auto layout = layout_of(to, {kSide, kSide}).value();
    const RawFile file = convert(base_, allow ? aware(to, {lora_}) : ConvertOptions{.to = to, .preset = "none"});
    const formats::Parameters parameters = parameters_of(layout, file, kLayer);
    formats::Parameters with_codes = parameters;
    const std::string& codes = file.at(kWeight).bytes;
    with_codes.tensors[0].resize(codes.size());
    std::memcpy(with_codes.tensors[0].data(), codes.data(), codes.size());
    const std::vector<float> decoded = formats::dequantize(layout, with_codes, 1);
    std::vector<float> sum(decoded);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<float>(delta_[i]);
    const formats::Quantized fresh = formats::quantize(layout, whole(layout, sum), {}, {}, 1);
    const std::vector<float> anew = formats::dequantize(fresh.layout, fresh.parameters, 1);
    const Matrix w(w_.begin(), w_.end());
    const double size = std::sqrt(squares(wanted_));
    return {distance(Matrix(decoded.begin(), decoded.end()), w) / std::sqrt(squares(w)),
            distance(stored_values(layout, parameters, sum), wanted_) / size,
            distance(Matrix(anew.begin(), anew.end()), wanted_) / size};
  }

  RawFile base_;
  std::vector<float> w_;
  Matrix delta_, wanted_;
  MergeLora lora_;
};

// "Block INT8 beats scaled FP8 on the base and loses after a LoRA is merged": so it is where scales stay, and that is
// mended by scales that allow for it.
TEST_F(LoraScaleErrors, StaleScalesLoseAConcentratedLoraAndTheseDoNot) {
  start(low_rank_base(), spiky_lora(), 0.1);
  const Errors fp8 = errors("float8_e4m3fn", false), int8 = errors("int8_blockwise", false);
  EXPECT_LT(int8.base, 0.5 * fp8.base);
  EXPECT_GT(int8.stale, 1.5 * fp8.fresh) << "the claim";
  for (const std::string to : {"float8_e4m3fn", "float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise", "int8_row",
                               "int8_blockwise", "mxfp8", "nvfp4"}) {
    const Errors plain = errors(to, false), allowing = errors(to, true);
    SCOPED_TRACE(fmt::format("{}: base, stale, fresh {:.4f} {:.4f} {:.4f}, allowing {:.4f} {:.4f} {:.4f}", to,
                             plain.base, plain.stale, plain.fresh, allowing.base, allowing.stale, allowing.fresh));
    EXPECT_LT(allowing.stale, plain.stale);
    EXPECT_LE(allowing.stale, 1.12 * plain.fresh) << "as good as scales that are chosen anew";
    if (!to.starts_with("nvfp4")) {
      EXPECT_GT(plain.stale, 1.5 * allowing.stale);
    }
  }
  const Errors mended_fp8 = errors("float8_e4m3fn", true), mended_int8 = errors("int8_blockwise", true);
  EXPECT_LT(mended_int8.stale, mended_fp8.stale) << "mended";
  EXPECT_LT(mended_int8.stale, 0.75 * fp8.fresh);
}

// The control: a LoRA that stays within the blocks' range needs none of this.
TEST_F(LoraScaleErrors, ASmoothLoraHardlyClips) {
  start(low_rank_base(), smooth_lora(), 0.01);
  for (const std::string to : {"float8_e4m3fn", "int8_row", "int8_blockwise", "nvfp4"}) {
    const Errors plain = errors(to, false), allowing = errors(to, true);
    SCOPED_TRACE(fmt::format("{}: stale {:.4f}, allowing {:.4f}", to, plain.stale, allowing.stale));
    EXPECT_NEAR(allowing.stale / plain.stale, 1, 0.05);
    EXPECT_NEAR(allowing.base / plain.base, 1, 0.05);
  }
}

// Scales that are searched: what they leave of both weights together is no more than what either's own scales leave.
TEST_F(LoraScaleErrors, SearchedScalesServeBoth) {
  start(low_rank_base(), spiky_lora(), 0.1);
  const Matrix w(w_.begin(), w_.end());
  const std::vector<float> target(wanted_.begin(), wanted_.end());
  for (const std::string to : {"nvfp4", "w4a8"}) {
    SCOPED_TRACE(to);
    const auto layout = layout_of(to, {kSide, kSide}).value();
    RawFile sum;
    sum.tensors = {{kWeight, test::f32_tensor({kSide, kSide}, target)}};
    const auto both = [&](const RawFile& source, const ConvertOptions& options) {
      const formats::Parameters parameters = parameters_of(layout, convert(source, options), kLayer);
      const double base = distance(stored_values(layout, parameters, w_), w);
      const double merged = distance(stored_values(layout, parameters, target), wanted_);
      return std::sqrt(base * base + merged * merged);
    };
    ConvertOptions plain{.to = to, .preset = "none"};
    const double allowing = both(base_, aware(to, {lora_}));
    EXPECT_LT(allowing, 0.96 * both(base_, plain));
    EXPECT_LT(allowing, 1.002 * both(sum, plain));  // whose scales hold nearly all of the base
  }
}

TEST_F(LoraScales, BytesDependOnNeitherThreadsNorMemoryNorInterruptions) {
  RawFile file = long_model(rng_), adapter;
  for (const std::string layer : {"blocks.2.q", "blocks.9.q"}) Lora::random(rng_, 64, 64, 4, 1).write(adapter, layer);
  adapter.tensors.emplace_back("blocks.9.q.dora_scale", test::f32_tensor({1, 64}, normal_floats(rng_, 64)));
  const MergeLora lora = lora_file(adapter, 0.5);
  for (const std::string to : {"float8_e4m3fn", "nvfp4", "int8_convrot"})
    for (const int effort : {1, 2}) {
      SCOPED_TRACE(to);
      ConvertOptions options = aware(to, {lora});
      options.effort = effort;
      const std::string expected = undisturbed(file, options);
      expect_same_bytes(options, expected);
      interrupt(options, 0.5, 2);
      // Another strength is another run.
      ConvertOptions other = options;
      other.scale_loras[0].strength = 0.75;
      EXPECT_EQ(error_of([&] { resume(other, 2); }), "resume-mismatch");
      EXPECT_GT(resume(options, 2).rows_resumed, 0u);
      EXPECT_TRUE(file_bytes(out()) == expected);
      std::filesystem::remove(out());
    }
}

TEST_F(LoraScales, GoWithMergedAdapters) {
  const RawFile file = two_blocks();
  const MergeLora a = random_lora("a", 0.2), b = random_lora("b", 0.2);
  const RawFile with_a = merged(file, {a});
  for (const std::string to : {"float8_e4m3fn", "int8_convrot"}) {
    const RawFile expected = convert(with_a, aware(to, {b}));
    ConvertOptions options = aware(to, {b});
    options.merge_loras = {a};
    const RawFile got = convert(file, options);
    EXPECT_EQ(got.at(kWeight), expected.at(kWeight));
    EXPECT_EQ(got.at(kLayer + ".weight_scale"), expected.at(kLayer + ".weight_scale"));
  }
}

// Scales of a layer that takes up one adapter and keeps its format move by powers of two, as far as the other needs.
TEST_F(LoraScales, GoWithMergesThatKeepTheFormat) {
  const RawFile file = two_blocks(), packed = convert(file, {.to = "float8_e4m3fn", .preset = "none"});
  const std::string name = kLayer + ".weight_scale";
  const float stored = floats_of(packed.at(name)).at(0);
  const Matrix before = plain_values(convert(packed, {.to = "fp32", .preset = "none"}).at(kWeight));
  Lora a = Lora::random(rng_, 256, 512, 8, 0.05), b = Lora::random(rng_, 256, 512, 8, 1.5);
  RawFile one, two;
  a.write(one, kLayer);
  b.write(two, kLayer);
  const Matrix delta = a.delta(), later = b.delta();
  double merged = 0, largest = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    merged = std::max(merged, std::abs(before[i] + delta[i]));
    largest = std::max({largest, merged, std::abs(before[i] + delta[i] + later[i])});
  }
  ConvertOptions options = aware("float8_e4m3fn", {});
  options.merge_loras = {lora_file(one, 1, "one")};
  const float without = floats_of(convert(packed, options).at(name)).at(0);
  options.scale_loras = {lora_file(two, 1, "two")};
  const float with = floats_of(convert(packed, options).at(name)).at(0);
  EXPECT_TRUE(row(plan_, kLayer).keeps_format);
  const auto power = [&](double amax) {
    return std::exp2(std::max(0.0, std::ceil(std::log2(amax / 448 / double{stored}) - 1e-6)));
  };
  EXPECT_EQ(without, stored * static_cast<float>(power(merged)));
  EXPECT_EQ(with, stored * static_cast<float>(power(largest)));
  EXPECT_GT(with, without);
}

TEST_F(LoraScales, AreToldAbout) {
  const RawFile file = two_blocks();
  const MergeLora a = random_lora("a", 0.25);
  const RawFile got = convert(file, aware("float8_e4m3fn", {a}));
  EXPECT_NE(row(plan_, kLayer).reason.find("scales allow for adapters"), std::string::npos);
  EXPECT_EQ(row(plan_, "blocks.1.q").reason.find("adapters"), std::string::npos);
  const auto rows = nlohmann::json::parse(to_json(plan_)).at("rows");
  size_t marked = 0;
  for (const auto& entry : rows) marked += entry.value("scale_adapters", 0);
  EXPECT_EQ(marked, 1u);
  const auto recipe = nlohmann::json::parse(got.metadata.at("mezzotint")).at("recipe");
  EXPECT_EQ(recipe.at("lora"), nlohmann::json::parse(R"([{"file": "a.safetensors", "strength": 0.25}])"));
  const ConvertOptions again = recipe_from_json(recipe.dump());
  EXPECT_EQ(again.scale_loras, (std::vector<MergeLora>{{"a.safetensors", 0.25}}));
  EXPECT_EQ(error_of([] { recipe_from_json(R"({"version": 1, "to": "fp16", "lora": [{"file": 1}]})"); }), "bad-recipe");
}

TEST_F(LoraScales, ErrorsAndWhatKeepsItsScales) {
  const RawFile file = two_blocks();
  const MergeLora a = random_lora("a");
  EXPECT_EQ(error_of([&] { plan(file, aware("bf16", {a})); }), "bad-option");
  ConvertOptions excluding = aware("float8_e4m3fn", {a});
  excluding.exclude = {"blocks\\.0"};
  EXPECT_EQ(error_of([&] { plan(file, excluding); }), "bad-option");
  RawFile stray;
  Lora::random(rng_, 256, 512, 8, 1).write(stray, "blocks.7.q");
  EXPECT_EQ(error_of([&] { plan(file, aware("float8_e4m3fn", {lora_file(stray, 1, "stray")})); }), "adapter-unrelated");
  Lora::random(rng_, 256, 512, 8, 1).write(stray, kLayer);
  ConvertOptions both = aware("float8_e4m3fn", {lora_file(stray, 1, "stray")});
  const Plan lenient = plan(file, both);
  EXPECT_TRUE(std::any_of(lenient.warnings.begin(), lenient.warnings.end(),
                          [](const std::string& line) { return line.find("blocks.7.q") != std::string::npos; }));
  both.lora_strict = true;
  EXPECT_EQ(error_of([&] { plan(file, both); }), "unmatched-adapter-keys");
  EXPECT_EQ(error_of([&] { plan(file, aware("float8_e4m3fn", {{a.file, NAN}})); }), "bad-option");
  // Codes that are kept keep their scales, and that is said.
  RawFile half = convert(file, {.to = "float8_e4m3fn", .preset = "none"});
  RawFile adapter;
  for (const std::string& layer : {kLayer, std::string("blocks.1.q")})
    Lora::random(rng_, 256, 512, 8, 1).write(adapter, layer);
  for (auto& [name, tensor] : half.tensors)
    if (name == "blocks.1.q.weight") tensor = file.at(name);
  std::erase_if(half.tensors, [](const auto& entry) {
    return entry.first.starts_with("blocks.1.q.weight_scale") || entry.first == "blocks.1.q.comfy_quant";
  });
  half.metadata.clear();
  const RawFile got = convert(half, aware("float8_e4m3fn", {lora_file(adapter, 1, "two")}));
  EXPECT_EQ(got.at(kWeight), half.at(kWeight));
  EXPECT_EQ(got.at(kLayer + ".weight_scale"), half.at(kLayer + ".weight_scale"));
  EXPECT_TRUE(std::any_of(plan_.warnings.begin(), plan_.warnings.end(),
                          [](const std::string& line) { return line.starts_with("1 quantized layers"); }));
}

}  // namespace
}  // namespace mezzotint::convert
