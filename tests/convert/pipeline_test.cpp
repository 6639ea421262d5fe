#include <cmath>

#include "convert/conversion.h"

namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::RawTensor;
using test::test_rng;

using Pipelines = Conversion;

/// Every format, block-wise ones with a block that the shapes allow.
std::vector<std::string> every_format() {
  std::vector<std::string> names;
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable) continue;
    bool has_block = false;
    for (const auto& option : format->options) has_block |= option.name == "block_size";
    names.push_back(std::string(format->name) + (has_block ? ":block_size=16" : ""));
    for (const auto& alias : format->aliases) names.emplace_back(alias.name);
  }
  return names;
}

RawFile awkward_model(std::mt19937_64& rng, DType dtype) {
  RawFile file;
  int number = 0;
  for (const auto& input : test::awkward_inputs()) {
    const std::string block = "blocks." + std::to_string(number++);
    // The second for formats whose groups of columns are whole.
    for (const auto& [layer, rows, cols] : {std::tuple{".q", 80, 48}, {".k", 16, 256}}) {
      const auto values = test::make_values(input, rng, rows, cols);
      file.tensors.emplace_back(
          block + layer + ".weight",
          RawTensor{std::string(name(dtype)), {rows, cols}, text_of(test::as_source(values, dtype).bytes)});
    }
  }
  file.tensors.emplace_back("blocks.0.wide.weight", weight(rng, {16, 4096}, dtype));
  file.tensors.emplace_back("blocks.0.tall.weight", weight(rng, {2048, 16}, dtype));
  file.tensors.emplace_back("blocks.0.experts.weight", weight(rng, {3, 32, 64}, dtype));
  file.tensors.emplace_back("blocks.0.none.bias", RawTensor{"F32", {0}, ""});
  file.tensors.emplace_back("blocks.0.scalar", weight(rng, {1}, dtype));
  return file;
}

/// Where the format refuses a shape, the weight is copied.
void expect_in_memory_result(const RawFile& file, const RawFile& after, const std::string& format, Rounding rounding) {
  size_t quantized_layers = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.ends_with(".weight")) {
      EXPECT_EQ(*after.find(name), tensor) << name;
      continue;
    }
    const std::string layer = name.substr(0, name.size() - 7);
    SCOPED_TRACE(format + " " + layer + " from " + tensor.dtype);
    if (!layout_of(format, tensor.shape)) {
      EXPECT_EQ(*after.find(name), tensor) << name;
      continue;
    }
    ++quantized_layers;
    expect_layer(after, layer, quantized(format, tensor, layer, rounding));
  }
  EXPECT_GT(quantized_layers, test::awkward_inputs().size()) << format;
}

TEST_F(Pipelines, GiveTheBytesOfTheInMemoryPath) {
  auto rng = test_rng();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const RawFile file = awkward_model(rng, dtype);
    for (const std::string& format : every_format())
      for (const bool stochastic : {false, true}) {
        ConvertOptions options{.to = format, .preset = "none"};
        if (stochastic) {
          options.rounding = Rounding::Mode::stochastic;
          options.seed = 11;
        }
        const Rounding rounding{options.rounding, options.seed};
        std::string first;
        for (const int threads : {1, 2, 5})
          for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{600} << 10}) {
            options.max_memory = memory;
            const RawFile after = convert(file, options, threads);
            const std::string bytes = file_bytes(out());
            if (first.empty()) {
              first = bytes;
              expect_in_memory_result(file, after, format, rounding);
            }
            ASSERT_TRUE(bytes == first) << format << " with " << threads << " threads, " << memory << " bytes";
          }
        if (HasFailure()) return;
      }
  }
}

TEST_F(Pipelines, SeedsAndNamesMatterToStochasticRounding) {
  auto rng = test_rng();
  RawFile file;
  file.tensors.emplace_back("blocks.0.q.weight", weight(rng, {64, 64}));
  file.tensors.emplace_back("blocks.1.q.weight", file.at("blocks.0.q.weight"));
  const auto with_seed = [&](uint64_t seed) {
    return convert(file, {.rounding = Rounding::Mode::stochastic, .seed = seed});
  };
  const RawFile one = with_seed(1), two = with_seed(2);
  EXPECT_NE(one.at("blocks.0.q.weight"), two.at("blocks.0.q.weight"));
  EXPECT_NE(one.at("blocks.0.q.weight"), one.at("blocks.1.q.weight"));
  EXPECT_EQ(one.at("blocks.0.q.weight"), with_seed(1).at("blocks.0.q.weight"));
}

TEST_F(Pipelines, ReencodingIsDecodingAndQuantizing) {
  auto rng = test_rng();
  RawFile file;
  file.tensors.emplace_back("blocks.0.q.weight", weight(rng, {80, 48}));
  file.tensors.emplace_back("blocks.0.k.weight", weight(rng, {32, 256}));
  file.tensors.emplace_back("blocks.0.experts.weight", weight(rng, {3, 32, 64}));
  std::set<std::string> decoded, encoded;
  for (const std::string& from : every_format()) {
    const RawFile middle = convert(file, {.to = from, .preset = "none"});
    for (const std::string& to : every_format()) {
      std::string first;
      for (const int threads : {1, 3}) {
        const RawFile after = convert(middle, {.to = to, .preset = "none", .max_memory = 64 << 10}, threads);
        const std::string bytes = file_bytes(out());
        if (first.empty()) first = bytes;
        EXPECT_TRUE(bytes == first) << from << " to " << to;
        for (const auto& [name, tensor] : file.tensors) {
          const std::string layer = name.substr(0, name.size() - 7);
          RawTensor wide = tensor;
          if (layout_of(from, tensor.shape)) {
            const auto source = quantized(from, tensor, layer);
            wide = {"F32", tensor.shape, test::raw_bytes(formats::dequantize(source.layout, source.parameters, 1))};
          }
          const auto entry = std::find_if(plan_.rows.begin(), plan_.rows.end(),
                                          [&](const PlanRow& one) { return one.name == layer || one.name == name; });
          ASSERT_NE(entry, plan_.rows.end());
          SCOPED_TRACE(from + " to " + to + " " + layer);
          if (entry->action == Action::reencode || entry->action == Action::encode) {
            // A plain source is not widened by a file of its own: the values are the same.
            expect_layer(after, layer, quantized(to, wide, layer));
            encoded.insert(to);
            if (entry->action == Action::reencode) decoded.insert(from);
          } else {
            EXPECT_EQ(after.at(name), middle.at(name));
          }
        }
      }
    }
  }
  for (const std::string& format : every_format()) {
    EXPECT_TRUE(encoded.contains(format)) << format;
    EXPECT_EQ(decoded.contains(format), formats::select_format(format).format->quantized) << format;
  }
}

// Whole models cast to fp8, without scale or marker: the codes are the values.
TEST_F(Pipelines, PlainFp8IsASourceLikeAnyOther) {
  auto rng = test_rng();
  for (const std::string dtype : {"F8_E4M3", "F8_E5M2"}) {
    const int mantissa = dtype == "F8_E4M3" ? 3 : 2, bias = dtype == "F8_E4M3" ? 7 : 15;
    std::string codes(80 * 256, 0);
    std::vector<float> values;
    for (char& byte : codes) {
      const unsigned code = rng() % 0x78 | (rng() % 2) << 7;  // finite in both
      byte = static_cast<char>(code);
      // By the definition of a small float, not by our decoder.
      const int exponent = static_cast<int>(code & 0x7f) >> mantissa;
      const int fraction = static_cast<int>(code) & ((1 << mantissa) - 1);
      const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - mantissa)
                                             : std::ldexp((1 << mantissa) + fraction, exponent - bias - mantissa);
      values.push_back(static_cast<float>(code & 0x80 ? -magnitude : magnitude));
    }
    RawFile file;
    file.tensors.emplace_back("blocks.0.q.weight", RawTensor{dtype, {80, 256}, codes});
    const RawTensor wide{"F32", {80, 256}, test::raw_bytes(values)};
    for (const std::string& to : every_format()) {
      SCOPED_TRACE(dtype + " to " + to);
      const RawFile after = convert(file, {.to = to, .preset = "none", .max_memory = 64 << 10});
      const PlanRow& row = plan_.rows.front();
      if (row.action == Action::copy) {  // the same dtype: a scale would only round once more
        EXPECT_EQ(row.reason, "already " + dtype);
        EXPECT_EQ(after.at("blocks.0.q.weight"), file.at("blocks.0.q.weight"));
      } else {
        expect_layer(after, "blocks.0.q", quantized(to, wide, "blocks.0.q"));
        EXPECT_FALSE(plan_.notes.empty()) << "the source is lossy";
      }
    }
    EXPECT_EQ(convert(file, {.to = "fp32", .preset = "none"}).at("blocks.0.q.weight"), wide);
  }
}

TEST_F(Pipelines, ValuesThatAreNotFiniteAreReported) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  convert(file);
  EXPECT_TRUE(outcome_.warnings.empty());
  file.at("blocks.1.q.weight").bytes.replace(6, 2, "\x80\x7f");  // inf
  convert(file);
  ASSERT_EQ(outcome_.warnings.size(), 1u);
  EXPECT_NE(outcome_.warnings[0].find("blocks.1.q"), std::string::npos);
}

TEST_F(Pipelines, AnErrorInTheMiddleLeavesNoFinalFile) {
  auto rng = test_rng();
  for (const std::string to : {"float8_e4m3fn", "int8_row", "bf16", "fp32"})
    for (const int threads : {1, 4}) {
      test::write_raw(in(), small_model(rng));
      std::filesystem::remove(out());
      const auto model = checkpoint::Model::open(in());
      const Plan made = make_plan(model, out(), {.to = to}, threads);
      std::filesystem::resize_file(in(), std::filesystem::file_size(in()) / 2);
      EXPECT_EQ(error_of([&] { execute(made, model, {}); }), "file-changed");
      EXPECT_FALSE(std::filesystem::exists(out()));
    }
}

TEST_F(Pipelines, AnExistingOutputIsKeptUnlessAsked) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  convert(file);
  const std::string before = file_bytes(out());
  const auto model = checkpoint::Model::open(in());
  const Plan other = make_plan(model, out(), {.to = "int8"}, 2);
  EXPECT_EQ(error_of([&] { execute(other, model, {}); }), "output-exists");
  EXPECT_TRUE(file_bytes(out()) == before);
  EXPECT_EQ(names_in_folder().size(), 2u);
  execute(other, model, {.overwrite = true});
  EXPECT_FALSE(file_bytes(out()) == before);
}

}  // namespace
}  // namespace mezzotint::convert
