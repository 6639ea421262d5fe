#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mezzotint/formats/driver.h"

// Bytes of the reference implementations, kept in the format folders: tests/formats/make_golden.py says what they are.
namespace mezzotint::formats {
namespace {

namespace fs = std::filesystem;

/// name -> folder, as CMake found them.
std::vector<std::pair<std::string, fs::path>> folders() {
  std::ifstream list(fs::path(MEZZOTINT_BINARY_DIR) / "generated/format_folders.txt");
  std::vector<std::pair<std::string, fs::path>> found;
  std::string name, path;
  while (list >> name && std::getline(list >> std::ws, path)) found.emplace_back(name, path);
  return found;
}

std::vector<std::byte> from_hex(const std::string& text) {
  std::vector<std::byte> bytes(text.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

DType dtype_of(const nlohmann::json& tensor) {
  return dtype_from_name(tensor.at("dtype").get<std::string>()).value();
}

Layout layout_of(const Format& format, const nlohmann::json& golden) {
  const Selection selection = select_format(
      std::string(format.name) +
      (golden.at("options").empty() || golden["options"] == "" ? "" : ":" + golden["options"].get<std::string>()));
  const Shape shape = golden.at("source").at("shape").get<Shape>();
  return format.describe({shape, LayerKind::linear}, selection.options).layout.value();
}

/// The layout of a format that is only read, as its own recogniser finds it in the case's tensors and marker (where it
/// has one).
Layout recognised_layout(const Format& format, const nlohmann::json& golden) {
  StoredLayer layer;
  const nlohmann::json marker = golden.value("marker", nlohmann::json());
  if (!marker.is_null()) {
    layer.marker = &marker;
    layer.label = marker.at("format").get_ref<const std::string&>();
  }
  for (const auto& [suffix, tensor] : golden.at("tensors").items()) {
    TensorFacts facts{suffix, dtype_of(tensor), tensor.at("shape").get<Shape>()};
    layer.tensors.insert(suffix == "weight" ? layer.tensors.begin() : layer.tensors.end(), std::move(facts));
  }
  const Recognition found = format.recognise(layer);
  EXPECT_EQ(found.fit, Fit::labelled) << (found.problems.empty() ? "" : found.problems[0]);
  EXPECT_EQ(found.layout.shape, golden.at("source").at("shape").get<Shape>());
  return found.layout;
}

class Golden : public testing::TestWithParam<const Format*> {
 protected:
  void SetUp() override {
    for (const auto& [name, folder] : folders()) {
      if (name != GetParam()->name || !fs::exists(folder / "golden")) continue;
      for (const auto& entry : fs::directory_iterator(folder / "golden")) {
        if (entry.path().extension() != ".json") continue;
        const auto file = nlohmann::json::parse(std::ifstream(entry.path()));
        for (const auto& golden : file.at("cases")) cases.push_back(golden);
      }
      ASSERT_FALSE(cases.empty()) << folder << " has a golden folder without cases";
    }
  }
  std::vector<nlohmann::json> cases;
};

TEST_P(Golden, EncodesTheReferenceBytes) {
  if (!GetParam()->writable) return;
  for (const auto& golden : cases) {
    SCOPED_TRACE(golden["name"].get<std::string>() + " " + golden["options"].get<std::string>());
    const Layout layout = layout_of(*GetParam(), golden);
    const auto source = from_hex(golden["source"]["hex"]);
    const Tile whole{source.data(), dtype_of(golden["source"]), 0, layout.total_rows(), 0, layout.cols, layout.cols};
    const Quantized result = quantize(layout, whole, {}, {}, 1);
    ASSERT_EQ(golden["tensors"].size(), layout.tensors.size());
    for (size_t i = 0; i < layout.tensors.size(); ++i) {
      const auto& expected = golden["tensors"].at(layout.tensors[i].suffix);
      EXPECT_EQ(layout.tensors[i].dtype, dtype_of(expected)) << layout.tensors[i].suffix;
      EXPECT_EQ(layout.tensors[i].shape, expected["shape"].get<Shape>()) << layout.tensors[i].suffix;
      const auto bytes = from_hex(expected["hex"]);
      ASSERT_EQ(result.parameters.tensors[i].size(), bytes.size());
      EXPECT_EQ(std::memcmp(result.parameters.tensors[i].data(), bytes.data(), bytes.size()), 0)
          << layout.tensors[i].suffix;
    }
  }
}

TEST_P(Golden, DecodesTheReferenceBytes) {
  for (const auto& golden : cases) {
    SCOPED_TRACE(golden["name"].get<std::string>() + " " + golden["options"].get<std::string>());
    const Layout layout =
        GetParam()->writable ? layout_of(*GetParam(), golden) : recognised_layout(*GetParam(), golden);
    ASSERT_NE(layout.format, nullptr);
    Parameters parameters;
    for (const auto& tensor : layout.tensors)
      parameters.tensors.push_back(from_hex(golden["tensors"].at(tensor.suffix)["hex"]));
    std::vector<float> values = dequantize(layout, parameters, 1);
    const auto every = golden.value("every", size_t{1});  // of a large case, only these values are kept
    for (size_t i = 0; i * every < values.size(); ++i) values[i] = values[i * every];
    values.resize((values.size() + every - 1) / every);
    const auto expected = from_hex(golden["decoded"]);
    ASSERT_EQ(values.size() * sizeof(float), expected.size());
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), expected.size()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Golden, testing::ValuesIn(all_formats().begin(), all_formats().end()),
                         [](const auto& row) { return std::string(row.param->name); });

TEST(FormatFolders, AreTheTable) {
  const auto found = folders();
  ASSERT_EQ(found.size(), all_formats().size());
  size_t with_golden = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].first, all_formats()[i]->name) << "a format is called like its folder";
    EXPECT_TRUE(fs::exists(found[i].second / "README.md")) << found[i].second;
    with_golden += fs::exists(found[i].second / "golden");
  }
  EXPECT_GE(with_golden, 7u);
}

}  // namespace
}  // namespace mezzotint::formats
