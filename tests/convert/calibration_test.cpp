#include "mezzotint/convert/calibration/calibration.h"

#include <gmock/gmock.h>

#include "convert/conversion.h"
#include "convert/recordings.h"
#include "mezzotint/convert/calibration/histogram.h"
#include "mezzotint/convert/calibration/input_scale.h"
#include "mezzotint/convert/recipe.h"

namespace mezzotint::convert {
namespace {

using test::Inputs;
using test::make_inputs;
using test::RawFile;
using test::recording;
using testing::ElementsAre;
using testing::HasSubstr;

class CalibrationFiles : public testing::Test {
 protected:
  std::filesystem::path put(const std::string& name, const RawFile& file) const {
    test::write_raw(folder_ / name, file);
    return folder_ / name;
  }
  Calibration open(const RawFile& file) const { return Calibration::open({put("one.safetensors", file)}); }

  test::TemporaryFolder folder_;
  std::mt19937_64 rng_ = test::test_rng();
};

TEST(CalibrationHistogram, BinsAreTheDocumentedOnes) {
  EXPECT_EQ(histogram::kBins, 514);
  EXPECT_EQ(histogram::bin(0.0f), 0);
  EXPECT_EQ(histogram::bin(-0.0f), 0);
  EXPECT_EQ(histogram::bin(1.0f), 1 + 8 * 40);
  EXPECT_EQ(histogram::bin(-1.0f), 1 + 8 * 40);
  EXPECT_EQ(histogram::bin(0x1p24f), 513);
  EXPECT_EQ(histogram::bin(std::numeric_limits<float>::max()), 513);
  for (int bin = 1; bin < histogram::kBins; ++bin) {
    const auto least = static_cast<float>(histogram::floor_of(bin));  // exact: five bits of mantissa
    EXPECT_EQ(histogram::bin(least), bin);
    EXPECT_EQ(histogram::bin(std::nextafter(least, 0.0f)), bin - 1);
    EXPECT_EQ(test::histogram_bin(least), static_cast<size_t>(bin));
  }
}

TEST_F(CalibrationFiles, OneFileIsReadAsItIs) {
  const Inputs inputs = make_inputs(rng_, 37, 29);
  const Calibration calibration = open(recording("blocks.0.q", inputs));
  const LayerStatistics* s = calibration.find("blocks.0.q");
  ASSERT_NE(s, nullptr);
  EXPECT_EQ(s->tokens, 37u);
  EXPECT_FALSE(s->has_gram);
  const RawFile file = recording("a", inputs);
  EXPECT_EQ(test::raw_bytes(s->channel_amax), file.at("a.channel_amax").bytes);
  EXPECT_EQ(test::raw_bytes(s->channel_mean), file.at("a.channel_mean").bytes);
  EXPECT_EQ(test::raw_bytes(s->second_moment), file.at("a.second_moment").bytes);
  EXPECT_EQ(test::raw_bytes(s->histogram), file.at("a.histogram").bytes);
  EXPECT_EQ(s->amax, *std::max_element(s->channel_amax.begin(), s->channel_amax.end()));
  EXPECT_THAT(calibration.layers(), ElementsAre("blocks.0.q"));
  EXPECT_GT(calibration.bytes(), 29u * 3 * 4 + 514 * 8);
  float row[29];
  EXPECT_FALSE(calibration.read_gram_rows("blocks.0.q", 0, 1, row));
  EXPECT_EQ(calibration.find("blocks.0.k"), nullptr);
}

TEST_F(CalibrationFiles, TwoFilesCountAsOneRecording) {
  const Inputs first = make_inputs(rng_, 300, 19), second = make_inputs(rng_, 70, 19, 3);
  Inputs both{370, 19, first.x};
  both.x.insert(both.x.end(), second.x.begin(), second.x.end());
  const auto a = put("a.safetensors", recording("l", first, true));
  const auto b = put("b.safetensors", recording("l", second, true));
  const Calibration merged = Calibration::open({a, b}), swapped = Calibration::open({b, a});
  const Calibration whole = open(recording("l", both, true));
  const LayerStatistics &m = *merged.find("l"), &w = *whole.find("l");
  EXPECT_EQ(m.tokens, 370u);
  EXPECT_EQ(m.amax, w.amax);
  EXPECT_EQ(m.channel_amax, w.channel_amax);
  EXPECT_EQ(m.histogram, w.histogram);
  EXPECT_EQ(m.percentile(99), w.percentile(99));
  double unweighted = 0;
  for (size_t j = 0; j < 19; ++j) {
    EXPECT_NEAR(m.channel_mean[j], w.channel_mean[j], 3e-7 * w.channel_amax[j]);
    EXPECT_NEAR(m.second_moment[j], w.second_moment[j], 3e-7 * w.second_moment[j]);
    const Calibration x = Calibration::open({a}), y = Calibration::open({b});
    const float plain = (x.find("l")->second_moment[j] + y.find("l")->second_moment[j]) / 2;
    unweighted = std::max(unweighted, std::abs(double{plain} / double{w.second_moment[j]} - 1));
  }
  EXPECT_GT(unweighted, 0.1) << "negative control: without weights the mean is another";
  // Neither the order of the files nor their names decide a bit.
  EXPECT_EQ(merged.fingerprint(), swapped.fingerprint());
  EXPECT_EQ(m.channel_mean, swapped.find("l")->channel_mean);
  EXPECT_EQ(m.second_moment, swapped.find("l")->second_moment);

  std::vector<float> rows(19 * 19), expected(19 * 19), other(19 * 19);
  ASSERT_TRUE(merged.read_gram_rows("l", 0, 19, rows.data()));
  ASSERT_TRUE(swapped.read_gram_rows("l", 0, 19, other.data()));
  ASSERT_TRUE(whole.read_gram_rows("l", 0, 19, expected.data()));
  EXPECT_EQ(rows, other);
  for (size_t i = 0; i < 19; ++i)
    for (size_t j = 0; j < 19; ++j) {
      const double scale = std::sqrt(double{expected[i * 20]} * double{expected[j * 20]});
      EXPECT_NEAR(rows[i * 19 + j], j <= i ? expected[i * 19 + j] : 0, 5e-7 * scale) << i << " " << j;
    }
}

TEST_F(CalibrationFiles, GramRowsComeInAnyPieces) {
  const size_t cols = 700;  // more than one piece of a stream
  Inputs inputs = make_inputs(rng_, 3, cols);
  const Calibration calibration = open(recording("l", inputs, true));
  std::vector<float> whole(cols * cols, -1);
  ASSERT_TRUE(calibration.read_gram_rows("l", 0, cols, whole.data()));
  EXPECT_EQ(whole[1], -1) << "above the diagonal nothing is written";
  for (size_t i = 0; i < cols; i += 13)
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t t = 0; t < 3; ++t) sum += double{inputs.at(t, i)} * double{inputs.at(t, j)};
      ASSERT_EQ(whole[i * cols + j], static_cast<float>(sum / 3)) << i << " " << j;
    }
  std::vector<float> piece(cols * cols, -1);
  for (int64_t row = 0, rows = 1; row < static_cast<int64_t>(cols); row += rows, rows = 1 + (3 * rows) % 97) {
    rows = std::min(rows, static_cast<int64_t>(cols) - row);
    ASSERT_TRUE(calibration.read_gram_rows("l", row, rows, piece.data() + row * static_cast<int64_t>(cols)));
  }
  EXPECT_EQ(whole, piece);
}

TEST_F(CalibrationFiles, FilesWithoutGramDoNotDiluteIt) {
  const Inputs first = make_inputs(rng_, 40, 6), second = make_inputs(rng_, 50, 6, 9);
  const auto a = put("a.safetensors", recording("l", first, true));
  const auto b = put("b.safetensors", recording("l", second, false));
  std::vector<float> merged(36, 0), alone(36, 0);
  ASSERT_TRUE(Calibration::open({a, b}).read_gram_rows("l", 0, 6, merged.data()));
  ASSERT_TRUE(Calibration::open({a}).read_gram_rows("l", 0, 6, alone.data()));
  EXPECT_EQ(merged, alone);
  EXPECT_TRUE(Calibration::open({a, b}).find("l")->has_gram);
}

TEST_F(CalibrationFiles, BadGramsAreToldWhenTheyAreRead) {
  const RawFile sound = recording("l", make_inputs(rng_, 40, 6), true);
  std::vector<float> rows(36);
  const auto read = [&](const RawFile& file) {
    const Calibration calibration = open(file);
    return error_of([&] { calibration.read_gram_rows("l", 0, 6, rows.data()); });
  };
  EXPECT_EQ(read(sound), "");
  RawFile file = sound;
  const float nan = std::nanf("");
  std::memcpy(file.at("l.gram").bytes.data() + 4 * 7, &nan, 4);
  EXPECT_EQ(read(file), "bad-calibration");
  // The other triangle by rows: the same size, another meaning.
  std::vector<float> upper;
  open(sound).read_gram_rows("l", 0, 6, rows.data());
  for (size_t i = 0; i < 6; ++i)
    for (size_t j = i; j < 6; ++j) upper.push_back(rows[j * 6 + i]);
  file.at("l.gram").bytes = test::raw_bytes(upper);
  EXPECT_EQ(read(file), "bad-calibration");
}

TEST_F(CalibrationFiles, PercentilesAreThoseOfTheValuesToABin) {
  Inputs inputs = make_inputs(rng_, 500, 16);
  const Calibration calibration = open(recording("l", inputs));
  const LayerStatistics& s = *calibration.find("l");
  std::vector<float> magnitudes(inputs.x);
  for (float& x : magnitudes) x = std::abs(x);
  std::sort(magnitudes.begin(), magnitudes.end());
  float before = 0;
  for (const double p : {12.5, 50.0, 90.0, 99.0, 99.9, 99.99}) {
    const auto rank = static_cast<size_t>(std::ceil(p / 100 * static_cast<double>(magnitudes.size()))) - 1;
    const float exact = magnitudes[rank], found = s.percentile(p);
    EXPECT_NEAR(found, exact, exact / 8 + 1e-12) << p;
    EXPECT_GE(found, before);
    EXPECT_LE(found, s.amax);
    before = found;
  }
  EXPECT_EQ(s.percentile(100), s.amax);
  EXPECT_LT(s.percentile(50), s.amax / 2) << "negative control";
  const Inputs zeros{4, 3, std::vector<float>(12, 0)};
  EXPECT_EQ(open(recording("l", zeros)).find("l")->percentile(99), 0);
}

TEST_F(CalibrationFiles, NamesAgreeButForThePrefixOfTheComponent) {
  const Inputs x = make_inputs(rng_, 4, 3), y = make_inputs(rng_, 5, 3), z = make_inputs(rng_, 6, 3);
  RawFile file = recording("blocks.0.q", x);
  test::add_recording(file, "text_encoders.t5xxl.transformer.blocks.1.q", y, false);
  test::add_recording(file, "model.diffusion_model.blocks.2.q", z, false);
  const Calibration calibration = open(file);
  const auto tokens = [&](const std::string& layer) {
    const LayerStatistics* s = calibration.find(layer);
    return s == nullptr ? 0 : s->tokens;
  };
  for (const std::string prefix : {"", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet."}) {
    EXPECT_EQ(tokens(prefix + "blocks.0.q"), 4u) << prefix;
    EXPECT_EQ(tokens(prefix + "blocks.2.q"), 6u) << prefix;
  }
  EXPECT_EQ(tokens("blocks.1.q"), 5u);
  EXPECT_EQ(tokens("text_encoders.t5xxl.transformer.blocks.1.q"), 5u);
  EXPECT_EQ(tokens("diffusion_model.blocks.1.q"), 0u) << "that is the text encoder's";
  EXPECT_EQ(tokens("text_encoders.clip_l.blocks.2.q"), 0u) << "that is the diffusion model's";
  EXPECT_EQ(tokens("ocks.0.q"), 0u);
  EXPECT_EQ(tokens("other.blocks.0.q"), 0u);
  const std::vector<std::string> model = {"diffusion_model.blocks.0.q", "diffusion_model.blocks.2.q"};
  EXPECT_THAT(calibration.unused(model), ElementsAre("text_encoders.t5xxl.transformer.blocks.1.q"));
  // Exact names first; what could be two things is none.
  test::add_recording(file, "diffusion_model.blocks.0.q", z, false);
  const Calibration two = open(file);
  EXPECT_EQ(two.find("blocks.0.q")->tokens, 4u);
  EXPECT_EQ(two.find("diffusion_model.blocks.0.q")->tokens, 6u);
  EXPECT_EQ(two.find("model.diffusion_model.blocks.0.q")->tokens, 6u);
}

TEST_F(CalibrationFiles, WhatNoRecordingGivesIsRefused) {
  const RawFile sound = recording("l", make_inputs(rng_, 40, 6), true);
  EXPECT_EQ(error_of([&] { open(sound); }), "");
  const auto with = [&](const std::string& tensor, test::RawTensor value) {
    RawFile file = sound;
    file.at("l." + tensor) = std::move(value);
    return error_of([&] { open(file); });
  };
  const auto floats = [](std::vector<float> values) {
    const auto size = static_cast<int64_t>(values.size());
    return test::f32_tensor({size}, values);
  };
  const auto integer = [](int64_t value) {
    return test::RawTensor{"I64", {}, test::raw_bytes(std::vector<int64_t>{value})};
  };
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const std::string bad = "bad-calibration";
  EXPECT_EQ(with("amax", test::f32_tensor({}, {1e6f})), bad);
  EXPECT_EQ(with("amax", test::f32_tensor({1}, {1})), bad);
  EXPECT_EQ(with("channel_amax", floats({1, 2, 3, 4, 5, inf})), bad);
  EXPECT_EQ(with("channel_amax", floats({1, 2, 3, 4, 5})), bad);
  EXPECT_EQ(with("channel_amax", test::f32_tensor({0}, {})), bad);
  EXPECT_EQ(with("channel_amax", test::f32_tensor({2, 3}, {1, 2, 3, 4, 5, 6})), bad);
  EXPECT_EQ(with("channel_mean", floats({0, 0, 0, nan, 0, 0})), bad);
  EXPECT_EQ(with("channel_mean", floats({0, 0, 0, 0, 0, 1e5f})), bad);
  EXPECT_EQ(with("second_moment", floats({0, 0, 0, 0, 0, -1})), bad);
  EXPECT_EQ(with("second_moment", floats({0, 0, 0, 0, 0, 1e9f})), bad);
  EXPECT_EQ(with("second_moment", test::RawTensor{"F16", {6}, std::string(12, '\0')}), bad);
  EXPECT_EQ(with("tokens", integer(0)), bad);
  EXPECT_EQ(with("tokens", integer(-1)), bad);
  EXPECT_EQ(with("tokens", integer(41)), bad);
  EXPECT_EQ(with("tokens", integer(std::numeric_limits<int64_t>::max())), bad);
  std::vector<int64_t> counts(514, 0);
  counts[7] = 240;
  EXPECT_EQ(with("histogram", {"I64", {514}, test::raw_bytes(counts)}), "") << "the sum is right";
  counts[8] = 1;
  EXPECT_EQ(with("histogram", {"I64", {514}, test::raw_bytes(counts)}), bad);
  counts[8] = -1;
  counts[9] = 1;
  EXPECT_EQ(with("histogram", {"I64", {514}, test::raw_bytes(counts)}), bad);
  counts.resize(513);
  EXPECT_EQ(with("histogram", {"I64", {513}, test::raw_bytes(counts)}), bad);
  EXPECT_EQ(with("gram", floats(std::vector<float>(36, 1))), bad);

  for (size_t i = 0; i + 1 < sound.tensors.size(); ++i) {
    RawFile file = sound;
    file.tensors.erase(file.tensors.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_EQ(error_of([&] { open(file); }), bad) << sound.tensors[i].first << " is missing";
  }
  RawFile file = sound;
  file.tensors.emplace_back("l.colour", test::f32_tensor({}, {1}));
  EXPECT_EQ(error_of([&] { open(file); }), bad);
  file = sound;
  file.metadata["mezzotint_calibration"] = "2";
  EXPECT_EQ(error_of([&] { open(file); }), "calibration-version");
  file.metadata.clear();
  EXPECT_EQ(error_of([&] { open(file); }), "not-calibration");
  EXPECT_EQ(error_of([&] { Calibration::open({folder_ / "none.safetensors"}); }), "file-not-found");

  const auto a = put("a.safetensors", sound), b = put("b.safetensors", sound);
  EXPECT_EQ(error_of([&] { Calibration::open({a, b}); }), "calibration-twice");
  const auto c = put("c.safetensors", recording("l", make_inputs(rng_, 40, 7)));
  EXPECT_EQ(error_of([&] { Calibration::open({a, c}); }), "calibration-mismatch");
  const Calibration calibration = Calibration::open({a});
  EXPECT_EQ(error_of([&] { calibration.find("l", 6); }), "");
  try {
    calibration.find("l", 8);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "calibration-mismatch");
    EXPECT_THAT(error.what(), HasSubstr("a.safetensors: tensor 'l'"));
    EXPECT_THAT(error.what(), HasSubstr("expected 8 inputs, found 6"));
  }
}

TEST_F(CalibrationFiles, TheFingerprintIsOfTheContent) {
  const Inputs inputs = make_inputs(rng_, 40, 6);
  const RawFile sound = recording("l", inputs, true);
  const uint64_t first = open(sound).fingerprint();
  EXPECT_EQ(Calibration::open({put("renamed.safetensors", sound)}).fingerprint(), first);
  EXPECT_NE(open(recording("m", inputs, true)).fingerprint(), first);
  EXPECT_NE(open(recording("l", inputs, false)).fingerprint(), first);
  RawFile file = sound;
  file.at("l.channel_mean").bytes[0] = static_cast<char>(file.at("l.channel_mean").bytes[0] ^ 1);
  EXPECT_NE(open(file).fingerprint(), first);
  file = sound;
  file.at("l.gram").bytes[4 * 20] = static_cast<char>(file.at("l.gram").bytes[4 * 20] ^ 1);
  EXPECT_NE(open(file).fingerprint(), first);
  EXPECT_EQ(open(sound).fingerprint_text().size(), 16u);
}

TEST(InputScale, RulesAreParsedStrictly) {
  EXPECT_EQ(parse_input_scale("amax"), 100);
  EXPECT_EQ(parse_input_scale("p99.9"), 99.9);
  EXPECT_EQ(parse_input_scale("p100"), 100);
  EXPECT_EQ(parse_input_scale("none"), std::nullopt);
  for (const char* bad : {"", "p", "p0", "p-1", "p100.1", "p99x", "99", "pinf", "pnan", "p1e1", "Amax", "p 99"})
    EXPECT_EQ(error_of([&] { parse_input_scale(bad); }), "bad-option") << bad;
}

TEST(InputScale, DivisorsAreTheRuntimes) {
  // formats.md 5.1, 5.2, 5.4; loaders of every other format ignore a stored input_scale (5.5 to 5.10).
  const std::map<std::string_view, float> known = {
      {"float8_e4m3fn", 448.0f}, {"float8_e5m2", 57344.0f}, {"nvfp4", 2688.0f}};
  for (const formats::Format* format : formats::all_formats()) {
    const auto at = known.find(format->name);
    EXPECT_EQ(format->input_scale_divisor, at == known.end() ? 0 : at->second) << format->name;
    const auto& companions = format->companions;
    if (at != known.end()) {
      EXPECT_NE(std::find(companions.begin(), companions.end(), "input_scale"), companions.end()) << format->name;
    }
  }
}

}  // namespace
}  // namespace mezzotint::convert
