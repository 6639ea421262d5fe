#include <fmt/format.h>

#include "convert/lora_cases.h"
#include "mezzotint/convert/merging/merge.h"
#include "mezzotint/convert/merging/scales.h"

// Adapters merged into quantized models (algorithms.md section 3).
namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

using MergingQuantized = Merging;

std::vector<std::string> quantized_formats() {
  std::vector<std::string> names;
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable || !format->quantized) continue;
    names.emplace_back(format->name);
    for (const auto& alias : format->aliases) names.emplace_back(alias.name);
  }
  return names;
}

struct Fidelity {
  double gain = 0, error = 0;
};

class MergeFidelity : public Merging {
 protected:
  /// Quantizes the base; the LoRA's delta has `share` of its length.
  void start(const std::string& format, const std::vector<float>& w, Lora lora, double share) {
    base_.tensors = {{"blocks.0.q.weight", test::f32_tensor({kSide, kSide}, w)}};
    lora = of_length(std::move(lora), w, share);
    delta_ = lora.delta();
    wanted_ = sum_of(w, delta_);
    RawFile file;
    lora.write(file, "blocks.0.q");
    lora_ = lora_file(file);
    quantized_ = convert(base_, {.to = format, .preset = "none"});
    before_ = decode(quantized_);
  }
  Matrix decode(const RawFile& file) {
    return plain_values(convert(file, {.to = "fp32", .preset = "none"}).at("blocks.0.q.weight"));
  }
  Fidelity merge(MergeRounding rounding, double strength = 1) {
    ConvertOptions options = merging({{lora_.file, strength}});
    options.merge_rounding = rounding;
    return fidelity(decode(convert(quantized_, options)));
  }
  Fidelity fidelity(const Matrix& got) const {
    double gain = 0, error = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      gain += (got[i] - before_[i]) * delta_[i];
      error += (got[i] - wanted_[i]) * (got[i] - wanted_[i]);
    }
    return {gain / squares(delta_), std::sqrt(error / squares(wanted_))};
  }

  RawFile base_, quantized_;
  MergeLora lora_;
  Matrix delta_, wanted_, before_;
};

TEST_F(MergeFidelity, FeedbackKeepsADeltaOfOnePercent) {
  const std::vector<float> w = low_rank_base();
  const Lora lora = smooth_lora();
  struct Case {
    std::string format;
    double gain;          // with feedback, at least
    double gain_nearest;  // at most: why feedback is the default
  };
  for (const auto& [format, gain, gain_nearest] :
       {Case{"float8_e4m3fn", 0.9, 0.5}, Case{"float8_e4m3fn_rowwise", 0.9, 0.5},
        Case{"float8_e4m3fn_blockwise", 0.9, 0.5}, Case{"mxfp8", 0.9, 0.5}, Case{"int8_blockwise", 0.95, 0.7},
        Case{"int8_row", 0.95, 0.95}, Case{"int8_convrot", 0.95, 0.95}, Case{"nvfp4", 0.6, 0.1}}) {
    SCOPED_TRACE(format);
    start(format, w, lora, 0.01);
    const Fidelity fed_back = merge(MergeRounding::feedback), nearest = merge(MergeRounding::nearest),
                   stochastic = merge(MergeRounding::stochastic);
    SCOPED_TRACE(fmt::format("gain and error: feedback {:.3f} {:.4f}, nearest {:.3f} {:.4f}, stochastic {:.3f} {:.4f}",
                             fed_back.gain, fed_back.error, nearest.gain, nearest.error, stochastic.gain,
                             stochastic.error));
    EXPECT_GE(fed_back.gain, gain);
    EXPECT_LE(fed_back.gain, 1.05);
    EXPECT_LE(nearest.gain, gain_nearest);
    EXPECT_LE(fed_back.error, 1.08 * nearest.error);
    EXPECT_LT(fed_back.error, stochastic.error);
  }
}

TEST_F(MergeFidelity, SpikesMoveTheScaleByAPowerOfTwoAtMost) {
  start("float8_e4m3fn", low_rank_base(), spiky_lora(), 0.05);
  for (const MergeRounding rounding : {MergeRounding::nearest, MergeRounding::feedback}) {
    const Fidelity got = merge(rounding);
    EXPECT_LE(got.error, 0.0280);
    EXPECT_NEAR(got.gain, 1, 0.02);
  }
  // From the original weights it is as good as the base alone.
  test::write_raw(adapters_ / "original.safetensors", base_);
  ConvertOptions from = merging({lora_});
  from.merge_original = (adapters_ / "original.safetensors").string();
  const Fidelity anew = fidelity(decode(convert(quantized_, from)));
  double base_error = 0;
  for (size_t i = 0; i < before_.size(); ++i) base_error += std::pow(before_[i] + delta_[i] - wanted_[i], 2);
  EXPECT_LE(anew.error, 1.01 * std::sqrt(base_error / squares(wanted_)));
}

TEST(FollowScale, KeepsWhatItCan) {
  using formats::ScaleUpdate;
  EXPECT_EQ(follow_scale(ScaleUpdate::fresh, 3, 5), 5);
  EXPECT_EQ(follow_scale(ScaleUpdate::power_of_two, 3, 2), 3);
  EXPECT_EQ(follow_scale(ScaleUpdate::power_of_two, 3, std::nextafter(3.0f, 4.0f)), 3);
  EXPECT_EQ(follow_scale(ScaleUpdate::power_of_two, 3, 3.1f), 6);
  EXPECT_EQ(follow_scale(ScaleUpdate::power_of_two, 3, 12), 12);
  EXPECT_EQ(follow_scale(ScaleUpdate::power_of_two, 3, 12.1f), 24);
  EXPECT_EQ(follow_scale(ScaleUpdate::enough, 3, std::nextafter(3.0f, 4.0f)), 3);
  EXPECT_EQ(follow_scale(ScaleUpdate::enough, 3, 2.9f), 3);
  EXPECT_EQ(follow_scale(ScaleUpdate::enough, 3, 2.5f), 2.5f);
  EXPECT_EQ(follow_scale(ScaleUpdate::enough, 3, 3.1f), 3.1f);
  for (const ScaleUpdate update : {ScaleUpdate::power_of_two, ScaleUpdate::enough})
    for (const float stored : {0.0f, -1.0f, INFINITY, NAN}) EXPECT_EQ(follow_scale(update, stored, 5), 5);
}

/// A model with a layer that every format can hold.
RawFile wide_model(std::mt19937_64& rng) {
  RawFile file;
  for (const std::string block : {"blocks.0", "blocks.1"}) {
    file.tensors.emplace_back(block + ".q.weight", weight(rng, {256, 512}, DType::f32));
    file.tensors.emplace_back(block + ".q.bias", weight(rng, {256}, DType::f32));
  }
  return file;
}

// Rows that the adapter leaves alone decode to the same bits, and layers that it does not name keep their bytes.
TEST_F(MergingQuantized, WhatNothingChangesStays) {
  auto rng = test_rng();
  RawFile file = wide_model(rng);
  const float largest = 16;  // stays the largest, and with it a scale of the whole weight
  std::memcpy(file.at("blocks.0.q.weight").bytes.data(), &largest, sizeof largest);
  Lora lora = Lora::random(rng, 256, 512, 8, 0.1);
  for (size_t i = 0; i < 200 * 8; ++i) lora.up[i] = 0;  // the first 200 rows
  RawFile adapter, spiky;
  lora.write(adapter, "blocks.0.q");
  const auto option = lora_file(adapter);
  for (size_t i = 240 * 8; i < 248 * 8; ++i) lora.up[i] *= 100;
  lora.write(spiky, "blocks.0.q");
  const auto with_spikes = lora_file(spiky, 1, "spiky");
  size_t exact = 0;
  for (const std::string& format : quantized_formats()) {
    SCOPED_TRACE(format);
    const RawFile base = convert(file, {.to = format, .preset = "none"});
    if (base.at("blocks.0.q.weight").dtype == "F32") continue;  // a shape that it does not take
    // One scale for the whole weight would have to move for spikes, and then small weights lose bits.
    const bool one_scale = layout_of(format, {256, 512})->block_rows == 0;
    ConvertOptions options = merging({one_scale ? option : with_spikes});
    options.merge_rounding = MergeRounding::nearest;
    const RawFile after = convert(base, options);
    ASSERT_EQ(after.tensors.size(), base.tensors.size());
    for (const auto& [name, tensor] : base.tensors) {
      if (!name.starts_with("blocks.0.q.weight")) {
        EXPECT_EQ(tensor, after.at(name)) << name;
      }
      EXPECT_EQ(tensor.dtype, after.at(name).dtype);
      EXPECT_EQ(tensor.shape, after.at(name).shape);
    }
    EXPECT_NE(after.at("blocks.0.q.weight"), base.at("blocks.0.q.weight"));
    EXPECT_EQ(header_layers(after), header_layers(base));
    expect_sound(out());
    const formats::ScaleUpdate update = formats::select_format(format).format->scale_update;
    if (update == formats::ScaleUpdate::fresh) continue;
    const auto values = [&](const RawFile& of) {
      return plain_values(convert(of, {.to = "fp32", .preset = "none"}).at("blocks.0.q.weight"));
    };
    const Matrix before = values(base), merged = values(after);
    size_t moved = 0;
    for (size_t i = 0; i < 128 * 512; ++i) moved += before[i] != merged[i];
    EXPECT_EQ(moved, 0u);
    for (size_t i = 200 * 512; i < before.size(); ++i) moved += before[i] != merged[i];
    EXPECT_GT(moved, 500u);
    ++exact;
  }
  EXPECT_GE(exact, 8u);
}

TEST_F(MergingQuantized, BytesDependOnNeitherThreadsNorMemory) {
  auto rng = test_rng();
  const RawFile file = wide_model(rng);
  RawFile adapter;
  Lora::random(rng, 256, 512, 8, 0.1).write(adapter, "blocks.0.q");
  adapter.tensors.emplace_back("blocks.1.q.diff", test::f32_tensor({256, 512}, normal_floats(rng, 256 * 512, 0.1)));
  adapter.tensors.emplace_back("blocks.1.q.diff_b", test::f32_tensor({256}, normal_floats(rng, 256, 0.1)));
  const auto option = lora_file(adapter);
  for (const std::string& format : quantized_formats()) {
    const RawFile base = convert(file, {.to = format, .preset = "none"});
    if (base.at("blocks.0.q.weight").dtype == "F32") continue;
    for (const MergeRounding rounding : {MergeRounding::feedback, MergeRounding::nearest, MergeRounding::stochastic}) {
      std::string first;
      for (const int threads : {1, 3})
        for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{5} << 20}) {
          ConvertOptions options = merging({option});
          options.merge_rounding = rounding;
          options.max_memory = memory;
          convert(base, options, threads);
          const std::string bytes = file_bytes(out());
          if (first.empty()) first = bytes;
          EXPECT_TRUE(bytes == first) << format << " " << name(rounding) << " " << threads << " " << memory;
        }
    }
    EXPECT_EQ(row(plan_, "blocks.0.q").keeps_format, true);
  }
}

TEST_F(MergingQuantized, KeepsActivationScales) {
  auto rng = test_rng();
  RawFile base = convert(wide_model(rng), {.to = "nvfp4", .preset = "none"});
  base.tensors.emplace_back("blocks.0.q.input_scale", test::f32_tensor({}, {0.25f}));
  std::vector<float> factors = normal_floats(rng, 512);
  for (float& x : factors) x = 0.5f + std::abs(x);
  base.tensors.emplace_back("blocks.0.q.pre_quant_scale", test::f32_tensor({512}, factors));
  const Lora lora = Lora::random(rng, 256, 512, 8, 0.5);
  RawFile adapter;
  lora.write(adapter, "blocks.0.q");
  const auto option = lora_file(adapter);
  const auto values = [&](const RawFile& of) {
    return plain_values(convert(of, {.to = "fp32", .preset = "none"}).at("blocks.0.q.weight"));
  };
  const Matrix before = values(base), delta = lora.delta();
  for (const MergeRounding rounding : {MergeRounding::feedback, MergeRounding::nearest}) {
    ConvertOptions options = merging({option});
    options.merge_rounding = rounding;
    const RawFile after = convert(base, options);
    EXPECT_EQ(after.at("blocks.0.q.input_scale"), base.at("blocks.0.q.input_scale"));
    EXPECT_EQ(after.at("blocks.0.q.pre_quant_scale"), base.at("blocks.0.q.pre_quant_scale"));
    const Matrix got = values(after);
    double gain = 0;
    for (size_t i = 0; i < got.size(); ++i) gain += (got[i] - before[i]) * delta[i];
    EXPECT_NEAR(gain / squares(delta), 1, 0.1) << name(rounding);
  }
}

TEST_F(MergingQuantized, IntoAnotherFormatIsLikeMergingDecoded) {
  auto rng = test_rng();
  RawFile adapter;
  Lora::random(rng, 256, 512, 8, 0.1).write(adapter, "blocks.0.q");
  const auto option = lora_file(adapter);
  const RawFile base = convert(wide_model(rng), {.to = "int8_blockwise", .preset = "none"});
  const RawFile decoded = convert(base, {.to = "fp32", .preset = "none"});
  ConvertOptions to{.to = "float8_e4m3fn", .preset = "none"};
  to.merge_loras = {option};
  const RawFile got = convert(base, to), expected = convert(decoded, to);
  for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(tensor, got.at(name)) << name;
}

TEST_F(MergingQuantized, OriginalsHaveToFit) {
  auto rng = test_rng();
  const RawFile file = wide_model(rng), base = convert(file, {.to = "int8_row", .preset = "none"});
  RawFile adapter;
  Lora::random(rng, 256, 512, 8, 0.1).write(adapter, "blocks.0.q");
  ConvertOptions options = merging({lora_file(adapter)});
  const auto original = adapters_ / "original.safetensors";
  options.merge_original = original.string();
  const auto with = [&](const RawFile& of) {
    test::write_raw(original, of);
    return error_of([&] { plan(base, options); });
  };
  EXPECT_EQ(with(file), "");
  EXPECT_EQ(with(base), "no-original");
  RawFile other = file;
  other.at("blocks.0.q.weight") = weight(rng, {256, 256});
  EXPECT_EQ(with(other), "no-original");
  other.tensors.erase(other.tensors.begin());
  EXPECT_EQ(with(other), "no-original");
  test::write_raw(original, file);
  EXPECT_EQ(error_of([&] { plan(file, options); }), "bad-option") << "nothing in it is quantized";
  // Codes of merged originals are those of a conversion of the merged model.
  ConvertOptions merge_first = merging(options.merge_loras);
  const RawFile expected = convert(convert(file, merge_first), {.to = "int8_row", .preset = "none"});
  const RawFile got = convert(base, options);
  for (const auto& [name, tensor] : expected.tensors) EXPECT_EQ(tensor, got.at(name)) << name;
}

/// Value of an e4m3 code, by its definition.
double e4m3_value(unsigned code) {
  const int exponent = static_cast<int>(code >> 3 & 15), fraction = static_cast<int>(code & 7);
  const double size = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (code & 0x80) != 0 ? -size : size;
}

// Whole models are published as casts to fp8, without scale or marker; they stay that.
TEST_F(MergingQuantized, CastsToFp8StayCasts) {
  auto rng = test_rng();
  RawFile file;
  for (const auto& [name, shape] : {std::pair<std::string, Shape>{"blocks.0.q.weight", {96, 512}},
                                    {"blocks.0.q.bias", {96}},
                                    {"conv.weight", {16, 6, 3, 3}}}) {
    std::string codes(element_count(shape).value(), 0);
    for (char& code : codes) code = static_cast<char>(0x20 + rng() % 0x18 + (rng() % 2) * 0x80);
    file.tensors.emplace_back(name, RawTensor{"F8_E4M3", shape, codes});
  }
  Lora q = Lora::random(rng, 96, 512, 8, 0.03), conv = Lora::random(rng, 16, 54, 4, 0.3);
  const std::vector<float> bias = normal_floats(rng, 96, 0.1);
  RawFile adapter;
  q.write(adapter, "blocks.0.q");
  conv.write(adapter, "conv", {3, 3});
  adapter.tensors.emplace_back("blocks.0.q.diff_b", test::f32_tensor({96}, bias));
  ConvertOptions options = merging({lora_file(adapter)});
  options.merge_rounding = MergeRounding::nearest;
  const auto values = [](const RawTensor& tensor) {
    Matrix out;
    for (const char code : tensor.bytes) out.push_back(e4m3_value(static_cast<unsigned char>(code)));
    return out;
  };
  const RawFile after = convert(file, options);
  EXPECT_EQ(after.tensors.size(), file.tensors.size());
  EXPECT_EQ(header_layers(after), nlohmann::json::object());
  for (const auto& [name, delta] : {std::pair<std::string, Matrix>{"blocks.0.q.weight", q.delta()},
                                    {"blocks.0.q.bias", Matrix(bias.begin(), bias.end())},
                                    {"conv.weight", conv.delta()}}) {
    EXPECT_EQ(after.at(name).dtype, "F8_E4M3");
    EXPECT_EQ(after.at(name).shape, file.at(name).shape);
    const Matrix before = values(file.at(name)), got = values(after.at(name));
    for (size_t i = 0; i < got.size(); ++i) {
      const double wanted = before[i] + delta[i];
      ASSERT_LE(std::abs(got[i] - wanted), std::max(std::abs(wanted) / 16, 0x1p-10) * (1 + 1e-5)) << name << i;
    }
    EXPECT_NE(got, before) << name;
  }
  // A small delta survives by feedback alone.
  for (float& x : q.up) x *= 4;  // about a percent
  RawFile small;
  q.write(small, "blocks.0.q");
  const Matrix delta = q.delta(), before = values(file.at("blocks.0.q.weight"));
  const auto gain = [&](MergeRounding rounding) {
    options = merging({lora_file(small, 1, "small")});
    options.merge_rounding = rounding;
    const Matrix got = values(convert(file, options).at("blocks.0.q.weight"));
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i) sum += (got[i] - before[i]) * delta[i];
    return sum / squares(delta);
  };
  EXPECT_GT(gain(MergeRounding::feedback), 0.8);
  EXPECT_LT(gain(MergeRounding::nearest), 0.7);
}

}  // namespace
}  // namespace mezzotint::convert
