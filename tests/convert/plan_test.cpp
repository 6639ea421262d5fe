#include "mezzotint/convert/plan.h"

#include "convert/conversion.h"

namespace mezzotint::convert {
namespace {

using nlohmann::json;
using test::f32_tensor;
using test::RawFile;
using test::RawTensor;
using test::test_rng;
using test::text_tensor;

using Planning = Conversion;

bool mentions(const std::vector<std::string>& lines, const std::string& text) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

// --- what a plan is
// ---------------------------------------------------------------------------------------------------

TEST_F(Planning, IsAFunctionOfHeaderAndOptions) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  const std::string first = to_json(plan(file));
  EXPECT_EQ(first, to_json(plan()));
  for (auto& [name, tensor] : file.tensors) tensor.bytes.assign(tensor.bytes.size(), '\1');
  EXPECT_EQ(first, to_json(plan(file))) << "other values, same header";
  EXPECT_NE(first, to_json(plan({.to = "int8_row"})));
}

TEST_F(Planning, ReadsNoTensorData) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  test::write_raw(in(), file);
  const std::string expected = to_json(plan());
  const auto model = checkpoint::Model::open(in());
  // Every read of data fails from here on.
  uint64_t header = 0;
  std::ifstream(in(), std::ios::binary).read(reinterpret_cast<char*>(&header), 8);
  std::filesystem::resize_file(in(), 8 + header);
  EXPECT_EQ(to_json(make_plan(model, out(), {}, 2)), expected);
  EXPECT_EQ(error_of([&] { model.source().read_all(0); }), "file-changed");  // the control
}

TEST_F(Planning, TakesFilesOfAnySize) {
  // 96 GiB of holes.
  json header;
  uint64_t offset = 0;
  for (int block = 0; block < 48; ++block) {
    const uint64_t bytes = uint64_t{2} << 30;
    header["blocks." + std::to_string(block) + ".q.weight"] = {
        {"dtype", "BF16"}, {"shape", {32768, 32768}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream(in(), std::ios::binary).write(reinterpret_cast<const char*>(&size), 8) << text;
  std::filesystem::resize_file(in(), 8 + size + offset);
  const Plan made = plan();
  EXPECT_EQ(made.quantized_weights, uint64_t{48} << 30);
  EXPECT_GT(made.layout.total_bytes, uint64_t{48} << 30);
  EXPECT_LT(made.layout.total_bytes, (uint64_t{48} << 30) + (64 << 10));
  EXPECT_LT(made.peak_memory, 64u << 20);
}

TEST_F(Planning, SaysTheExactSizeOfTheOutput) {  // Conversion::convert compares every file with its plan
  auto rng = test_rng();
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const RawFile file = small_model(rng, dtype);
    for (const formats::Format* format : formats::all_formats()) {
      if (!format->writable) continue;
      convert(file, {.to = std::string(format->name)});
      expect_sound(out());
      const json root = json::parse(to_json(plan_));
      EXPECT_EQ(root["bytes_out"], std::filesystem::file_size(out()));
      EXPECT_EQ(root["rows"].size(), file.tensors.size());
      EXPECT_EQ(outcome_.bytes_in, plan_.bytes_in);
    }
  }
}

// --- which layers
// -----------------------------------------------------------------------------------------------------

TEST_F(Planning, QuantizesMatricesAndCopiesTheRest) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  const RawFile after = convert(file, {.to = "float8_e4m3fn"});
  for (const std::string layer : {"blocks.0.q", "blocks.0.up", "blocks.1.q", "blocks.1.up"}) {
    expect_layer(after, layer, quantized("float8_e4m3fn", *file.find(layer + ".weight"), layer));
    EXPECT_EQ(after.find(layer + ".comfy_quant")->bytes, R"({"format": "float8_e4m3fn"})");
    EXPECT_EQ(header_layers(after)[layer]["format"], "float8_e4m3fn");
  }
  EXPECT_EQ(header_layers(after).size(), 4u);
  for (const std::string kept : {"blocks.0.q.bias", "blocks.0.norm.weight", "blocks.1.norm.weight", "counter"}) {
    ASSERT_NE(after.find(kept), nullptr);
    EXPECT_EQ(*after.find(kept), *file.find(kept));
  }
  EXPECT_EQ(after.tensors.size(), 4u * 3 + 5);
  EXPECT_EQ(after.metadata.at("title"), "a test");
  EXPECT_EQ(after.metadata.at("modelspec.architecture"), "none \"at\" all");
}

TEST_F(Planning, IncludeExcludeAndDrop) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  file.tensors.emplace_back("final_layer.weight", weight(rng, {64, 64}));
  EXPECT_EQ(row(plan(file), "final_layer.weight").action, Action::copy);
  EXPECT_EQ(row(plan({.include = {"final_layer"}}), "final_layer").action, Action::encode);
  EXPECT_EQ(row(plan({.exclude = {R"(blocks\.1\.)"}}), "blocks.1.q.weight").action, Action::copy);
  EXPECT_EQ(row(plan({.exclude = {R"(blocks\.1\.)"}}), "blocks.0.q").action, Action::encode);
  EXPECT_EQ(row(plan({.include = {"final"}, .exclude = {"final"}}), "final_layer.weight").action, Action::copy);
  for (const PlanRow& entry : plan().rows) EXPECT_FALSE(entry.reason.empty()) << entry.name;

  const RawFile after = convert({.drop = {R"(^blocks\.1\.)", "counter"}});
  EXPECT_EQ(after.find("counter"), nullptr);
  for (const auto& [name, tensor] : after.tensors) EXPECT_FALSE(name.starts_with("blocks.1.")) << name;
  EXPECT_EQ(header_layers(after).size(), 2u);
  EXPECT_EQ(row(plan_, "blocks.1.q.weight").action, Action::drop);
  EXPECT_EQ(row(plan_, "blocks.1.q.weight").bytes_out, 0u);
}

TEST_F(Planning, FallbackTakesWhatTheFormatCannot) {
  auto rng = test_rng();
  RawFile file = small_model(rng);  // 48 rows are not a multiple of 64
  const std::string blocks = "int8_blockwise:block_size=64";
  const RawFile kept = convert(file, {.to = blocks});
  EXPECT_EQ(kept.at("blocks.0.q.weight").dtype, "BF16");
  EXPECT_NE(row(plan_, "blocks.0.q.weight").reason.find("not a multiple of 64"), std::string::npos);
  const RawFile after = convert(file, {.to = blocks, .fallback = "float8_e5m2"});
  expect_layer(after, "blocks.0.up", quantized(blocks, *file.find("blocks.0.up.weight"), "blocks.0.up"));
  expect_layer(after, "blocks.0.q", quantized("float8_e5m2", *file.find("blocks.0.q.weight"), "blocks.0.q"));
  expect_sound(out());
  const RawFile neither = convert(file, {.to = blocks, .fallback = "int8_blockwise:block_size=32"});
  EXPECT_EQ(neither.at("blocks.0.q.weight").dtype, "BF16");

  // The same from a source that is quantized already.
  const RawFile eight = convert(file, {.to = "int8_row"});
  const RawFile again = convert(eight, {.to = blocks, .fallback = "float8_e4m3fn"});
  EXPECT_EQ(again.at("blocks.0.up.weight_scale").shape, (Shape{2, 1}));
  EXPECT_EQ(again.at("blocks.0.q.weight").dtype, "F8_E4M3");
  EXPECT_EQ(header_layers(again)["blocks.0.q"]["format"], "float8_e4m3fn");
  expect_sound(out());
}

TEST_F(Planning, LayerConfigDecidesByLayer) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  const std::string config = R"({"blocks\\.0\\.q": {"format": "int8_tensorwise", "full_precision_matrix_mult": true},
                                 "blocks\\.1\\.up": {"skip": true}, "nothing": {"format": "float8_e5m2"}})";
  const RawFile after = convert(file, {.layer_config = config});
  EXPECT_EQ(json::parse(after.at("blocks.0.q.comfy_quant").bytes),
            (json{{"format", "int8_tensorwise"}, {"full_precision_matrix_mult", true}}));
  EXPECT_EQ(after.at("blocks.1.up.weight"), *file.find("blocks.1.up.weight"));
  EXPECT_EQ(header_layers(after)["blocks.0.up"]["format"], "float8_e4m3fn");
  EXPECT_TRUE(mentions(plan_.warnings, "nothing"));
}

TEST_F(Planning, FullPrecisionFlagIsInBothForms) {
  auto rng = test_rng();
  const RawFile after = convert(small_model(rng), {.full_precision_matrix_mult = true});
  const json layers = header_layers(after);
  for (const auto& [layer, marker] : layers.items()) {
    EXPECT_EQ(marker["full_precision_matrix_mult"], true);
    EXPECT_EQ(json::parse(after.find(layer + ".comfy_quant")->bytes), marker);
  }
  EXPECT_EQ(header_layers(after).size(), 4u);
}

TEST_F(Planning, WarnsOfFormatsThatComfyuiCannotLoad) {
  auto rng = test_rng();
  for (const formats::Format* format : formats::all_formats()) {
    if (!format->writable) continue;
    bool has_block = false;
    for (const auto& option : format->options) has_block |= option.name == "block_size";
    const Plan made = plan(small_model(rng), {.to = std::string(format->name) + (has_block ? ":block_size=16" : "")});
    EXPECT_EQ(mentions(made.warnings, "ComfyUI cannot load"), format->quantized && !format->support.comfyui);
  }
}

TEST_F(Planning, RefusesOptionsThatMakeNoSense) {
  auto rng = test_rng();
  test::write_raw(in(), small_model(rng));
  EXPECT_EQ(error_of([&] { plan({.to = "float9"}); }), "unknown-format");
  EXPECT_EQ(error_of([&] { plan({.fallback = "x"}); }), "unknown-format");
  EXPECT_EQ(error_of([&] { plan({.preset = "x"}); }), "unknown-preset");
  EXPECT_EQ(error_of([&] { plan({.component = "x"}); }), "unknown-component");
  EXPECT_EQ(error_of([&] { plan({.include = {"("}}); }), "bad-regex");
  EXPECT_EQ(error_of([&] { plan({.drop = {"("}}); }), "bad-regex");
  EXPECT_EQ(error_of([&] { plan({.layer_config = "{"}); }), "bad-layer-config");
  const std::string deep = std::string(300'000, '[') + std::string(300'000, ']');
  EXPECT_EQ(error_of([&] { plan({.layer_config = R"({"a": )" + deep + "}"}); }), "bad-layer-config");
}

// --- memory
// -----------------------------------------------------------------------------------------------------------

TEST_F(Planning, ThreadsDecideNoBytes) {
  auto rng = test_rng();
  test::write_raw(in(), small_model(rng));
  // A tile of 64 rows of 64 needs 8 KiB and its codes 4 KiB: room for two of them, so threads must give way.
  const ConvertOptions options{.to = "int8_blockwise:block_size=16", .max_memory = 12 << 10};
  const Plan one = plan(options, 1), many = plan(options, 64);
  EXPECT_EQ(one.quantized_weights, many.quantized_weights);
  EXPECT_GT(one.quantized_weights, 0u);
  EXPECT_LT(many.threads, 16);
  EXPECT_EQ(one.layout.files[0].header, many.layout.files[0].header);
  EXPECT_EQ(plan({}, 64).threads, 64);
}

TEST_F(Planning, SaysWhichLayersDoNotFit) {
  auto rng = test_rng();
  const Plan made = plan(small_model(rng), {.max_memory = 16});
  EXPECT_EQ(made.quantized_weights, 0u);
  EXPECT_TRUE(mentions(made.warnings, "--max-memory"));
}

// --- sources that are quantized already
// -------------------------------------------------------------------------------

RawTensor some_codes(const std::string& dtype, Shape shape, std::mt19937_64& rng) {
  std::string bytes(element_count(shape).value(), '\0');
  for (char& c : bytes) c = static_cast<char>(rng() % 120);  // finite in either fp8
  return {dtype, std::move(shape), std::move(bytes)};
}

TEST_F(Planning, LegacyFilesAreRelabelledWithoutLoss) {
  auto rng = test_rng();
  for (const std::string dtype : {"F8_E4M3", "F8_E5M2"}) {
    RawFile file;
    file.tensors.emplace_back("scaled_fp8", RawTensor{dtype, {2}, "ab"});
    for (const std::string layer : {"blocks.0.q", "blocks.0.k", "head"}) {
      file.tensors.emplace_back(layer + ".weight", some_codes(dtype, {32, 16}, rng));
      file.tensors.emplace_back(layer + ".scale_weight", f32_tensor({1}, {0.25f}));
    }
    file.tensors.emplace_back("blocks.0.q.scale_input", f32_tensor({}, {3.0f}));
    file.tensors.emplace_back("blocks.0.k.scale_input", f32_tensor({}, {1.0f}));  // a placeholder
    file.tensors.emplace_back("norm.weight", weight(rng, {16}));
    file.tensors.emplace_back("small.weight", weight(rng, {4, 4}));
    file.tensors.emplace_back("small.scale_weight", f32_tensor({}, {1.0f}));  // a placeholder too
    const std::string label = dtype == "F8_E4M3" ? "float8_e4m3fn" : "float8_e5m2";
    const RawFile after = convert(file, {.to = label});
    for (const std::string layer : {"blocks.0.q", "blocks.0.k", "head"}) {
      EXPECT_EQ(after.at(layer + ".weight"), file.at(layer + ".weight"));
      EXPECT_EQ(after.at(layer + ".weight_scale"), f32_tensor({}, {0.25f}));
      EXPECT_EQ(json::parse(after.at(layer + ".comfy_quant").bytes),
                (json{{"format", label}, {"full_precision_matrix_mult", true}}));
    }
    EXPECT_EQ(after.at("blocks.0.q.input_scale"), f32_tensor({}, {3.0f}));
    EXPECT_EQ(after.at("small.weight"), file.at("small.weight"));
    EXPECT_EQ(after.tensors.size(), 3u * 3 + 1 + 2);
    EXPECT_TRUE(plan_.warnings.empty());
    expect_sound(out());

    // To another format the activation scale goes, and the result is what the values give.
    const RawFile other = convert(file, {.to = "int8_row"});
    EXPECT_EQ(other.find("blocks.0.q.input_scale"), nullptr);
    EXPECT_EQ(other.at("blocks.0.q.weight").dtype, "I8");
    EXPECT_TRUE(mentions(plan_.notes, "rounding errors"));
    expect_sound(out());
  }
}

TEST_F(Planning, AxiswiseAndMislabelledLayersKeepTheirCodes) {
  auto rng = test_rng();
  RawFile file;
  const auto add = [&](const std::string& layer, const std::string& marker, Shape scale) {
    std::vector<float> values(element_count(scale).value());
    for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f + static_cast<float>(i);
    file.tensors.emplace_back(layer + ".weight", some_codes("I8", {32, 16}, rng));
    file.tensors.emplace_back(layer + ".weight_scale", f32_tensor(std::move(scale), values));
    file.tensors.emplace_back(layer + ".comfy_quant", text_tensor(marker));
  };
  add("blocks.0.axis", R"({"format": "int8_axiswise"})", {32});
  add("blocks.0.rows", R"({"format": "int8_blockwise", "group_size": 1})", {32, 1});
  add("blocks.0.one", R"({"format": "int8_blockwise", "group_size": 128})", {});
  add("blocks.0.true", R"({"format": "int8_tensorwise", "per_row": true})", {32, 1});
  file.tensors.emplace_back("blocks.0.unsigned.weight", file.at("blocks.0.true.weight"));
  file.at("blocks.0.unsigned.weight").dtype = "U8";
  file.tensors.emplace_back("blocks.0.unsigned.weight_scale", f32_tensor({}, {2}));
  file.tensors.emplace_back("blocks.0.unsigned.comfy_quant", text_tensor(R"({"format": "int8_tensorwise"})"));
  const RawFile after = convert(file, {.to = "int8_tensorwise"});
  for (const std::string layer : {"axis", "rows", "one", "true", "unsigned"}) {
    const std::string name = "blocks.0." + layer;
    EXPECT_EQ(after.at(name + ".weight").bytes, file.at(name + ".weight").bytes);
    EXPECT_EQ(after.at(name + ".weight").dtype, "I8");
    EXPECT_EQ(after.at(name + ".weight_scale").bytes, file.at(name + ".weight_scale").bytes);
    const bool rows = layer != "one" && layer != "unsigned";
    EXPECT_EQ(after.at(name + ".weight_scale").shape, rows ? (Shape{32, 1}) : Shape{});
    EXPECT_EQ(header_layers(after)[name],
              rows ? (json{{"format", "int8_tensorwise"}, {"per_row", true}}) : (json{{"format", "int8_tensorwise"}}));
  }
  expect_sound(out());
  // A scaling that was asked for and is not there is another matter.
  const RawFile by_row = convert(file, {.to = "int8_row"});
  EXPECT_EQ(by_row.at("blocks.0.one.weight_scale").shape, (Shape{32, 1}));
  EXPECT_EQ(by_row.at("blocks.0.axis.weight").bytes, file.at("blocks.0.axis.weight").bytes);
}

TEST_F(Planning, BackToAPlainDtype) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  const RawFile eight = convert(file, {.to = "int8_row"});
  const RawFile back = convert(eight, {.to = "bf16"});
  EXPECT_TRUE(header_layers(back).empty());
  EXPECT_EQ(back.metadata.count("_quantization_metadata"), 0u);
  EXPECT_EQ(back.tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    ASSERT_NE(back.find(name), nullptr) << name;
    EXPECT_EQ(back.find(name)->dtype, tensor.dtype) << name;
    EXPECT_EQ(back.find(name)->shape, tensor.shape) << name;
  }
  EXPECT_EQ(back.at("counter"), file.at("counter"));
  expect_sound(out());
}

TEST_F(Planning, LayersOfOtherFormatsAreCarriedAlong) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  const std::string marker = R"({"format": "from_the_future", "params": {"x": 1}})";
  file.tensors.emplace_back("blocks.2.q.weight", weight(rng, {32, 32}));  // a float that we must not touch
  file.tensors.emplace_back("blocks.2.q.weight_scale", f32_tensor({2}, {1, 2}));
  file.tensors.emplace_back("blocks.2.q.odd", f32_tensor({}, {1}));
  file.tensors.emplace_back("blocks.2.q.bias", weight(rng, {32}));
  file.tensors.emplace_back("blocks.2.q.comfy_quant", text_tensor(marker));
  for (const std::string to : {"float8_e4m3fn", "bf16"}) {
    const RawFile after = convert(file, {.to = to});
    for (const auto& [name, tensor] : file.tensors)
      if (name.starts_with("blocks.2.")) {
        ASSERT_NE(after.find(name), nullptr) << name;
        EXPECT_EQ(*after.find(name), tensor) << name;
      }
    EXPECT_EQ(header_layers(after)["blocks.2.q"], json::parse(marker));
    EXPECT_FALSE(plan_.notes.empty());
  }
  const RawFile dropped = convert(file, {.drop = {R"(blocks\.2\.q\.weight$)"}});
  EXPECT_FALSE(header_layers(dropped).contains("blocks.2.q"));
  for (const auto& [name, tensor] : dropped.tensors)
    EXPECT_TRUE(!name.starts_with("blocks.2.") || name.ends_with("bias")) << name;
}

TEST_F(Planning, BrokenLayersAndOrphansAreCopiedWithAWarning) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  file.tensors.emplace_back("blocks.3.q.weight", some_codes("F8_E4M3", {32, 32}, rng));
  file.tensors.emplace_back("blocks.3.q.comfy_quant", text_tensor(R"({"format": "float8_e4m3fn"})"));
  file.tensors.emplace_back("gone.weight_scale", f32_tensor({}, {1}));
  file.tensors.emplace_back("gone.comfy_quant", text_tensor(R"({"format": "float8_e4m3fn"})"));
  const RawFile after = convert(file);
  for (const std::string name : {"blocks.3.q.weight", "blocks.3.q.comfy_quant", "gone.weight_scale"})
    EXPECT_EQ(after.at(name), file.at(name));
  EXPECT_EQ(after.find("gone.comfy_quant"), nullptr);
  EXPECT_EQ(header_layers(after).count("blocks.3.q"), 1u);
  EXPECT_TRUE(mentions(plan_.warnings, "do not fit their markers"));
  EXPECT_TRUE(mentions(plan_.warnings, "belong to no layer"));
}

TEST_F(Planning, LegacyScalesThatCannotBeReadAreNotLost) {
  auto rng = test_rng();
  RawFile file;
  file.tensors.emplace_back("scaled_fp8", RawTensor{"F8_E4M3", {0}, ""});
  file.tensors.emplace_back("blocks.0.q.weight", some_codes("F8_E4M3", {32, 32}, rng));
  file.tensors.emplace_back("blocks.0.q.scale_weight", f32_tensor({31}, std::vector<float>(31, 0.5f)));
  const RawFile after = convert(file);
  EXPECT_EQ(after.at("blocks.0.q.weight"), file.at("blocks.0.q.weight"));
  EXPECT_EQ(after.at("blocks.0.q.scale_weight"), file.at("blocks.0.q.scale_weight"));
  EXPECT_FALSE(plan_.warnings.empty());
}

TEST_F(Planning, OldScalesMakeRoomForNewOnes) {
  auto rng = test_rng();
  RawFile file = small_model(rng);
  file.tensors.emplace_back("blocks.0.q.weight_scale", f32_tensor({}, {7}));
  file.tensors.emplace_back("blocks.0.q.input_scale", f32_tensor({}, {7}));
  file.tensors.emplace_back("blocks.1.norm.weight_scale", f32_tensor({}, {7}));
  const RawFile after = convert(file);
  expect_layer(after, "blocks.0.q", quantized("float8_e4m3fn", file.at("blocks.0.q.weight"), "blocks.0.q"));
  EXPECT_EQ(after.find("blocks.0.q.input_scale"), nullptr);
  EXPECT_EQ(after.at("blocks.1.norm.weight_scale"), f32_tensor({}, {7}));
}

TEST_F(Planning, DropOfAQuantizedLayerTakesItsPartsAlong) {
  auto rng = test_rng();
  const RawFile eight = convert(small_model(rng), {.to = "float8_e4m3fn"});
  RawFile file = eight;
  file.tensors.emplace_back("blocks.0.q.input_scale", f32_tensor({}, {2}));
  const RawFile after = convert(file, {.drop = {R"(blocks\.0\.q\.weight$)"}});
  for (const auto& [name, tensor] : after.tensors)
    EXPECT_TRUE(!name.starts_with("blocks.0.q.") || name.ends_with("bias")) << name;
  EXPECT_FALSE(header_layers(after).contains("blocks.0.q"));
  expect_sound(out());

  const RawFile without = convert(file, {.drop = {"input_scale"}});
  EXPECT_EQ(without.find("blocks.0.q.input_scale"), nullptr);
  EXPECT_EQ(without.at("blocks.0.q.weight"), file.at("blocks.0.q.weight"));
  const RawFile refused = convert(file, {.drop = {"weight_scale"}});
  EXPECT_EQ(refused.at("blocks.0.q.weight_scale"), file.at("blocks.0.q.weight_scale"));
  EXPECT_TRUE(mentions(plan_.warnings, "--drop"));
}

// --- all-in-one checkpoints, shards, recipes
// --------------------------------------------------------------------------

TEST_F(Planning, AllInOneFilesQuantizeTheDiffusionModel) {
  auto rng = test_rng();
  RawFile file;
  const std::string model = "model.diffusion_model.", text = "text_encoders.t5xxl.transformer.",
                    vae = "first_stage_model.";
  for (auto& [name, tensor] : small_model(rng).tensors) file.tensors.emplace_back(model + name, tensor);
  file.tensors.emplace_back("text_encoders.t5xxl.scaled_fp8", RawTensor{"F8_E4M3", {0}, ""});
  file.tensors.emplace_back(text + "block.0.q.weight", some_codes("F8_E4M3", {32, 32}, rng));
  file.tensors.emplace_back(text + "block.0.q.scale_weight", f32_tensor({}, {0.5f}));
  file.tensors.emplace_back(text + "block.0.k.weight", weight(rng, {32, 32}));
  file.tensors.emplace_back(vae + "decoder.mid.attn.weight", weight(rng, {32, 32}));
  const RawFile after = convert(file, {.to = "int8_row"});
  EXPECT_EQ(after.at(model + "blocks.0.q.weight").dtype, "I8");
  EXPECT_EQ(after.at(vae + "decoder.mid.attn.weight"), file.at(vae + "decoder.mid.attn.weight"));
  EXPECT_EQ(after.at(text + "block.0.k.weight"), file.at(text + "block.0.k.weight"));
  EXPECT_EQ(after.at(text + "block.0.q.weight"), file.at(text + "block.0.q.weight"));
  EXPECT_EQ(after.at(text + "block.0.q.weight_scale"), f32_tensor({}, {0.5f}));
  EXPECT_EQ(header_layers(after)[text + "block.0.q"]["format"], "float8_e4m3fn");
  EXPECT_EQ(after.find("text_encoders.t5xxl.scaled_fp8"), nullptr);
  expect_sound(out());
  const RawFile all = convert(file, {.to = "int8_row", .component = "all"});
  EXPECT_EQ(all.at(text + "block.0.q.weight").dtype, "I8");
  const RawFile one = convert(file, {.to = "int8_row", .component = "text_encoders.t5xxl"});
  EXPECT_EQ(one.at(model + "blocks.0.q.weight").dtype, "BF16");
  EXPECT_EQ(one.at(text + "block.0.k.weight").dtype, "I8");
}

TEST_F(Planning, ShardsHoldWhatOneFileHolds) {
  auto rng = test_rng();
  const RawFile file = small_model(rng);
  const RawFile whole = convert(file);
  std::filesystem::remove(out());
  const std::string layer_text = whole.metadata.at("_quantization_metadata");
  convert({.max_shard_bytes = 12 << 10});
  ASSERT_GT(plan_.layout.files.size(), 2u);
  size_t tensors = 0;
  for (const auto& shard : plan_.layout.files) {
    const RawFile part = test::read_raw(shard.path);
    EXPECT_EQ(part.metadata.at("_quantization_metadata"), layer_text);
    tensors += part.tensors.size();
    for (const auto& [name, tensor] : part.tensors) EXPECT_EQ(tensor, *whole.find(name)) << name;
  }
  EXPECT_EQ(tensors, whole.tensors.size());
  expect_sound(plan_.layout.index_path);
  // And a sharded set is an input like any other.
  std::filesystem::copy_file(plan_.layout.index_path, folder_ / "copy.index.json");
  const auto model = checkpoint::Model::open(plan_.layout.index_path);
  const Plan back = make_plan(model, folder_ / "joined.safetensors", {}, 2);
  execute(back, model, {});
  EXPECT_EQ(test::read_raw(folder_ / "joined.safetensors").tensors.size(), whole.tensors.size());
  for (const auto& [name, tensor] : test::read_raw(folder_ / "joined.safetensors").tensors)
    EXPECT_EQ(tensor, *whole.find(name)) << name;
}

TEST_F(Planning, RunningAgainChangesNothing) {
  auto rng = test_rng();
  for (const std::string to : {"float8_e4m3fn", "int8_row", "int8_blockwise:block_size=16", "bf16"}) {
    const RawFile once = convert(small_model(rng), {.to = to});
    const std::string bytes = file_bytes(out());
    convert(once, {.to = to});
    EXPECT_EQ(file_bytes(out()), bytes) << to;
  }
}

}  // namespace
}  // namespace mezzotint::convert
