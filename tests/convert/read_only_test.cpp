#include <cmath>
#include <sstream>

#include "convert/conversion.h"
#include "support/reference_file.h"

// Formats that can be read and not written, over the reference bytes in their folders.
namespace mezzotint::convert {
namespace {

using nlohmann::json;
using test::RawFile;
using test::RawTensor;
using test::reference_cases;

using ReadOnly = Conversion;

std::vector<const formats::Format*> read_only_formats() {
  std::vector<const formats::Format*> found;
  for (const formats::Format* format : formats::all_formats())
    if (!format->writable) found.push_back(format);
  return found;
}

RawFile file_of(const json& golden) {
  return test::reference_file(golden, "blocks.0.q");
}

TEST_F(ReadOnly, AreNoTarget) {
  auto rng = test::test_rng();
  test::write_raw(in(), small_model(rng));
  for (const formats::Format* format : read_only_formats())
    for (const char* refused : {"--to", "--fallback"}) {
      const std::string name(format->name);
      ConvertOptions options{.to = "int8_tensorwise"};
      (std::string(refused) == "--to" ? options.to : options.fallback) = name;
      try {
        plan(options);
        ADD_FAILURE() << name << " was planned as " << refused;
      } catch (const Error& error) {
        EXPECT_EQ(error.name(), "bad-option");
        EXPECT_NE(std::string(error.what()).find(name + " can be read but not written"), std::string::npos)
            << error.what();
      }
    }
}

TEST_F(ReadOnly, ConvertToTheValuesOfTheReference) {
  size_t cases = 0;
  for (const formats::Format* format : read_only_formats())
    for (const json& golden : reference_cases(format->name)) {
      SCOPED_TRACE(std::string(format->name) + " " + golden["name"].get<std::string>());
      const RawFile after = convert(file_of(golden), {.to = "fp32"});
      expect_sound(out());
      const RawTensor& weight = after.at("blocks.0.q.weight");
      EXPECT_EQ(weight.dtype, "F32");
      EXPECT_EQ(json(weight.shape), golden["source"]["shape"]);
      const std::string expected = test::bytes_from_hex(golden["decoded"]);
      const auto every = golden.value("every", size_t{1});
      std::string got;
      for (size_t i = 0; i < weight.bytes.size(); i += 4 * every) got += weight.bytes.substr(i, 4);
      EXPECT_TRUE(got == expected);
      EXPECT_EQ(after.tensors.size(), 1u) << "parameters are left out";
      ++cases;
    }
  EXPECT_GE(cases, 9u);
}

TEST_F(ReadOnly, ConvertToAFormatThatLoads) {
  for (const formats::Format* format : read_only_formats()) {
    const auto golden = reference_cases(format->name);
    if (golden.empty()) continue;
    const RawFile after = convert(file_of(golden[0]), {.to = "int8_tensorwise", .include = {"blocks"}});
    expect_sound(out());
    EXPECT_EQ(after.at("blocks.0.q.weight").dtype, "I8");
    EXPECT_EQ(json(after.at("blocks.0.q.weight").shape), golden[0]["source"]["shape"]);
    EXPECT_EQ(header_layers(after).at("blocks.0.q").at("format"), "int8_tensorwise");
  }
}

TEST_F(ReadOnly, AreFoundInAFile) {
  for (const formats::Format* format : read_only_formats()) {
    const auto golden = reference_cases(format->name);
    if (golden.empty()) continue;
    test::write_raw(in(), file_of(golden[0]));
    const auto model = checkpoint::Model::open(in());
    ASSERT_EQ(model.layers().size(), 1u);
    EXPECT_EQ(model.layers()[0].layout.format, format);
    EXPECT_TRUE(model.layers()[0].consistent);
    bool loadable = true;
    for (const auto& finding : checkpoint::verify(model)) loadable &= finding.severity != checkpoint::Severity::error;
    EXPECT_FALSE(loadable) << "verify says that no loader of ComfyUI's takes this file";
  }
}

TEST_F(ReadOnly, TakeUpNoAdapters) {
  const test::TemporaryFolder adapters;
  size_t seen = 0;
  for (const formats::Format* format : read_only_formats())
    for (const json& golden : reference_cases(format->name)) {
      const RawFile file = file_of(golden);
      test::write_raw(in(), file);
      const auto model = checkpoint::Model::open(in());
      ASSERT_EQ(model.layers().size(), 1u);
      const Shape& shape = model.layers()[0].layout.shape;
      RawFile lora;
      for (const auto& [suffix, size] :
           {std::pair<std::string, Shape>{"lora_B", {shape[0], 1}}, {"lora_A", {1, shape[1]}}})
        lora.tensors.emplace_back("blocks.0.q." + suffix + ".weight",
                                  test::f32_tensor(size, std::vector<float>(element_count(size).value(), 0.1f)));
      test::write_raw(adapters / "lora.safetensors", lora);
      ConvertOptions options;
      options.to = "";
      options.merge_loras = {{(adapters / "lora.safetensors").string(), 1}};
      EXPECT_EQ(error_of([&] { plan(options); }), "merge-unwritable") << format->name;
      options.to = "bf16";
      const Plan made = plan(options);
      EXPECT_TRUE(std::any_of(made.rows.begin(), made.rows.end(), [](const PlanRow& one) { return one.merge; }))
          << format->name;
      ++seen;
    }
  EXPECT_GT(seen, 2u);
}

}  // namespace
}  // namespace mezzotint::convert
