#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/convert/optimizers/method.h"
#include "mezzotint/formats/driver.h"
#include "support/awkward.h"
#include "support/checkpoint_file.h"
#include "support/seed.h"

/// What the tests of planning and running a conversion share: a file in, a file out, both read and written by hand.
namespace mezzotint::convert {

class Conversion : public testing::Test {
 protected:
  std::filesystem::path in() const { return folder_ / "in.safetensors"; }
  std::filesystem::path out() const { return folder_ / "out.safetensors"; }

  Plan plan(const ConvertOptions& options = {}, int threads = 2) const {
    return make_plan(checkpoint::Model::open(in()), out(), options, threads);
  }
  Plan plan(const test::RawFile& file, const ConvertOptions& options = {}, int threads = 2) const {
    test::write_raw(in(), file);
    return plan(options, threads);
  }
  /// Plans and runs; checks what holds for every conversion.
  test::RawFile convert(const test::RawFile& file, const ConvertOptions& options = {}, int threads = 2) {
    test::write_raw(in(), file);
    return convert(options, threads);
  }
  test::RawFile convert(const ConvertOptions& options = {}, int threads = 2) {
    const auto model = checkpoint::Model::open(in());
    plan_ = make_plan(model, out(), options, threads);
    Progress last;
    ExecuteOptions run{.overwrite = true};
    run.progress = [&](const Progress& progress) { last = progress; };
    outcome_ = execute(plan_, model, run);
    EXPECT_FALSE(outcome_.cancelled);
    EXPECT_EQ(last.bytes_done, last.bytes_total);
    EXPECT_EQ(last.rows_done, last.rows_total);
    uint64_t bytes = 0;
    for (const auto& file : plan_.layout.files) {
      EXPECT_EQ(std::filesystem::file_size(file.path), file.bytes);
      bytes += file.bytes;
    }
    if (plan_.layout.files.size() > 1) return {};
    EXPECT_EQ(plan_.layout.total_bytes, bytes);
    EXPECT_EQ(names_in_folder().size(), 2u) << "in and out, nothing else";
    return test::read_raw(out());
  }
  /// No error in the output, and both marker forms say the same.
  static void expect_sound(const std::filesystem::path& path) {
    for (const auto& finding : checkpoint::verify(checkpoint::Model::open(path)))
      EXPECT_TRUE(finding.severity != checkpoint::Severity::error || finding.code == "not-loadable-by-comfyui")
          << finding.code << " " << finding.subject << ": " << finding.message;
  }
  std::set<std::string> names_in_folder() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.insert(entry.path().filename().string());
    return names;
  }
  static const PlanRow& row(const Plan& plan, const std::string& name) {
    for (const PlanRow& entry : plan.rows)
      if (entry.name == name) return entry;
    ADD_FAILURE() << "no row " << name;
    static const PlanRow none;
    return none;
  }

  test::TemporaryFolder folder_;
  Plan plan_;
  Outcome outcome_;
};

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A weight of normal values, stored as `dtype`.
inline test::RawTensor weight(std::mt19937_64& rng, Shape shape, DType dtype = DType::bf16) {
  const auto count = static_cast<int64_t>(element_count(shape).value());
  const auto values = test::make_values(test::awkward_inputs()[0], rng, count / shape.back(), shape.back());
  return {std::string(name(dtype)), std::move(shape), text_of(test::as_source(values, dtype).bytes)};
}

/// A model of no known architecture: two blocks, a norm, biases, metadata.
inline test::RawFile small_model(std::mt19937_64& rng, DType dtype = DType::bf16) {
  test::RawFile file;
  for (const std::string block : {"blocks.0", "blocks.1"}) {
    file.tensors.emplace_back(block + ".q.weight", weight(rng, {48, 64}, dtype));
    file.tensors.emplace_back(block + ".q.bias", weight(rng, {48}, dtype));
    file.tensors.emplace_back(block + ".up.weight", weight(rng, {128, 64}, dtype));
    file.tensors.emplace_back(block + ".norm.weight", weight(rng, {64}, dtype));
  }
  file.tensors.emplace_back("counter", test::RawTensor{"I64", {1}, std::string(8, '\7')});
  file.metadata = {{"title", "a test"}, {"modelspec.architecture", "none \"at\" all"}};
  return file;
}

/// The format's layout of a weight; nothing where it refuses the shape.
inline std::optional<formats::Layout> layout_of(const std::string& format, const Shape& shape) {
  const auto selection = formats::select_format(format);
  const auto kind = shape.size() == 3 ? formats::LayerKind::expert_bank : formats::LayerKind::linear;
  return selection.format->describe({shape, kind}, selection.options).layout;
}

/// What the format's own in-memory path makes of a stored weight, as the tensors of a file.
inline formats::Quantized quantized(const std::string& format, const test::RawTensor& tensor, const std::string& name,
                                    Rounding rounding = {}) {
  const auto layout = layout_of(format, tensor.shape).value();
  if (rounding.mode == Rounding::Mode::stochastic) rounding = Rounding::stochastic(rounding.key, name + ".weight");
  const formats::Tile whole{
      tensor.bytes.data(), dtype_from_name(tensor.dtype).value(), 0, layout.total_rows(), 0, layout.cols, layout.cols};
  const int effort = choose_method("", ConvertOptions().effort, layout, nullptr).effort;
  return formats::quantize(layout, whole, {.effort = effort}, rounding, 1);
}

inline void expect_layer(const test::RawFile& file, const std::string& name, const formats::Quantized& expected) {
  for (size_t i = 0; i < expected.layout.tensors.size(); ++i) {
    const auto& stored = expected.layout.tensors[i];
    const auto* found = file.find(name + "." + stored.suffix);
    ASSERT_NE(found, nullptr) << name << "." << stored.suffix;
    EXPECT_EQ(found->dtype, mezzotint::name(stored.dtype));
    EXPECT_EQ(found->shape, stored.shape);
    EXPECT_TRUE(found->bytes == text_of(expected.parameters.tensors[i])) << name << "." << stored.suffix;
  }
}

inline nlohmann::json header_layers(const test::RawFile& file) {
  const auto at = file.metadata.find("_quantization_metadata");
  return at == file.metadata.end() ? nlohmann::json::object() : nlohmann::json::parse(at->second).at("layers");
}

template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(error.name());
  }
  return "";
}

}  // namespace mezzotint::convert
