#pragma once
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "mezzotint/adapter/file.h"
#include "mezzotint/adapter/stack.h"
#include "support/checkpoint_file.h"

/// Adapter files made for a test.
namespace mezzotint::test {

using adapter::AdapterFile;

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

/// {"shape", "values"} with integers over 64.
inline adapter::Tensor tensor_of(const nlohmann::json& entry) {
  adapter::Tensor tensor{entry["shape"].get<Shape>(), {}};
  for (const auto& value : entry["values"]) tensor.values.push_back(value.get<float>() / 64.0f);
  return tensor;
}

using NamedTensors = std::vector<std::pair<std::string, adapter::Tensor>>;

/// Writes the tensors as float32 and reads them as an adapter file.
inline AdapterFile adapter_file(const TemporaryFolder& folder, const NamedTensors& tensors,
                                const std::map<std::string, std::string>& metadata = {},
                                const adapter::ReadOptions& options = {}) {
  RawFile file;
  for (const auto& [name, tensor] : tensors) file.tensors.emplace_back(name, f32_tensor(tensor.shape, tensor.values));
  file.metadata = metadata;
  write_raw(folder / "adapter.safetensors", file);
  return AdapterFile::open(folder / "adapter.safetensors", options);
}

/// All patches of a file on one weight.
inline adapter::Stack stack_of(const AdapterFile& file, const Shape& weight, double strength) {
  adapter::Stack stack(weight);
  for (const adapter::Patch& patch : file.patches())
    stack.add(adapter::load(file, patch, stack.shape()), strength, {patch.target, 0, 0, false});
  return stack;
}

/// The weight behind a stack, whole.
inline std::vector<float> merged(const adapter::Stack& stack, std::vector<float> weight) {
  stack.apply({0, adapter::matrix_rows(stack.shape())}, weight.data());
  return weight;
}

/// Largest difference by the largest expected value.
inline double relative_error(const std::vector<float>& values, const std::vector<float>& expected) {
  EXPECT_EQ(values.size(), expected.size());
  double error = 0, largest = 1e-30;
  for (size_t i = 0; i < std::min(values.size(), expected.size()); ++i) {
    error = std::max(error, std::abs(static_cast<double>(values[i]) - static_cast<double>(expected[i])));
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    if (!std::isfinite(values[i])) return INFINITY;
  }
  return error / largest;
}

/// Pseudo-random values in [-1, 1].
inline adapter::Tensor random_tensor(Shape shape, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  adapter::Tensor tensor{std::move(shape), {}};
  tensor.values.resize(element_count(tensor.shape).value_or(0));
  for (float& x : tensor.values) x = uniform(rng);
  return tensor;
}

inline adapter::Tensor scalar(float value) {
  return {{}, {value}};
}

}  // namespace mezzotint::test
