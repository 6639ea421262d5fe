#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "synth/checkpoint.h"
#include "synth/recipe.h"

namespace mezzotint::synth {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class SynthCheckpoint : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("synth_checkpoint." + std::to_string(::getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::vector<io::TensorSpec> small_wan() const {
    const auto file = fs::path(MEZZOTINT_SOURCE_DIR) / "tools" / "shapes" / "wan2.2-ti2v-5b.json";
    return expand(read_shape_file(file), {.blocks = 2, .scale = 0.08});
  }

  static std::string slurp(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  /// The header of a safetensors file, by hand.
  static json header(const std::string& file) {
    uint64_t n = 0;
    for (int i = 7; i >= 0; --i) n = n << 8 | static_cast<unsigned char>(file.at(static_cast<size_t>(i)));
    return json::parse(file.substr(8, n));
  }

  fs::path dir_;
};

TEST_F(SynthCheckpoint, HoldsTheNamesAndShapesAskedFor) {
  const auto specs = small_wan();
  const auto size = write_checkpoint(dir_ / "a.safetensors", specs, {.threads = 2, .metadata = {{"format", "pt"}}});
  const auto file = slurp(dir_ / "a.safetensors");
  EXPECT_EQ(file.size(), size);
  auto j = header(file);
  EXPECT_EQ(j["__metadata__"]["format"], "pt");
  j.erase("__metadata__");
  EXPECT_EQ(j.size(), 825u - 28u * 27u);
  EXPECT_EQ(j["blocks.1.ffn.2.weight"]["shape"], json({256, 1152}));
  EXPECT_EQ(j["patch_embedding.weight"]["shape"], json({256, 48, 1, 2, 2}));
  EXPECT_EQ(j["head.modulation"]["dtype"], "BF16");
  uint64_t bytes = 0;
  for (const auto& spec : specs) {
    ASSERT_TRUE(j.contains(spec.name));
    EXPECT_EQ(j[spec.name]["shape"], json(spec.shape));
    bytes += j[spec.name]["data_offsets"][1].get<uint64_t>() - j[spec.name]["data_offsets"][0].get<uint64_t>();
  }
  EXPECT_EQ(bytes, data_bytes(specs));
}

TEST_F(SynthCheckpoint, BytesDependOnTheSeedAndNotOnTheThreads) {
  const auto specs = small_wan();
  write_checkpoint(dir_ / "1.safetensors", specs, {.seed = 7, .threads = 1});
  write_checkpoint(dir_ / "5.safetensors", specs, {.seed = 7, .threads = 5});
  write_checkpoint(dir_ / "other.safetensors", specs, {.seed = 8, .threads = 1});
  EXPECT_EQ(slurp(dir_ / "1.safetensors"), slurp(dir_ / "5.safetensors"));
  EXPECT_NE(slurp(dir_ / "1.safetensors"), slurp(dir_ / "other.safetensors"));
}

TEST_F(SynthCheckpoint, ShardsHoldEveryTensorOnce) {
  const auto specs = small_wan();
  write_checkpoint(dir_ / "s.safetensors", specs, {.threads = 2, .shards = 3});
  std::map<std::string, int> seen;
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(dir_)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++files;
    const auto j = header(slurp(entry.path()));
    for (const auto& [name, info] : j.items())
      if (name != "__metadata__") ++seen[name];
  }
  EXPECT_GE(files, 3u);
  EXPECT_LE(files, 5u);
  EXPECT_EQ(seen.size(), specs.size());
  for (const auto& [name, count] : seen) EXPECT_EQ(count, 1) << name;
  EXPECT_TRUE(fs::exists(dir_ / "s.safetensors.index.json"));
}

}  // namespace
}  // namespace mezzotint::synth
