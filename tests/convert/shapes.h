#pragma once
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mezzotint/io/tensor_info.h"

namespace mezzotint::test {

inline io::TensorInfo tensor(std::string name, Shape shape, DType dtype = DType::bf16) {
  io::TensorInfo info;
  info.name = std::move(name);
  info.dtype = dtype;
  info.bytes = byte_count(dtype, shape).value();
  info.shape = std::move(shape);
  return info;
}

/// Every tensor of tools/shapes/NAME.json, at full depth.
inline std::vector<io::TensorInfo> published(const std::string& model) {
  std::ifstream file(MEZZOTINT_SOURCE_DIR "/tools/shapes/" + model + ".json");
  EXPECT_TRUE(file) << model;
  const auto json = nlohmann::json::parse(file);
  std::vector<io::TensorInfo> tensors;
  const auto add = [&](const std::string& prefix, const nlohmann::json& row) {
    const std::string dtype = row.value("dtype", json.at("dtype").get<std::string>());
    tensors.push_back(tensor(prefix + row.at("name").get<std::string>(), row.at("shape").get<Shape>(),
                             dtype_from_name(dtype).value()));
  };
  const std::string prefix = json.at("prefix");
  for (const auto& group : json.at("blocks")) {
    std::vector<int> indices;
    if (group.contains("indices")) {
      indices = group.at("indices").get<std::vector<int>>();
    } else {
      const int first = group.value("first", 0);
      for (int i = 0; i < group.at("count").get<int>(); ++i) indices.push_back(first + i);
    }
    for (const int i : indices) {
      for (const auto& row : group.at("tensors")) {
        add(prefix + group.at("prefix").get<std::string>() + std::to_string(i) + ".", row);
      }
    }
  }
  for (const auto& row : json.at("tensors")) add(prefix, row);
  return tensors;
}

/// A model from its weights' names alone (".weight" is added), all [64, 64].
inline std::vector<io::TensorInfo> model_of(std::initializer_list<const char*> layers) {
  std::vector<io::TensorInfo> tensors;
  for (const char* layer : layers) tensors.push_back(tensor(std::string(layer) + ".weight", {64, 64}));
  return tensors;
}

inline std::vector<io::TensorInfo> renamed(std::vector<io::TensorInfo> tensors, const std::string& old_prefix,
                                           const std::string& new_prefix) {
  for (io::TensorInfo& t : tensors) {
    if (t.name.starts_with(old_prefix)) t.name = new_prefix + t.name.substr(old_prefix.size());
  }
  return tensors;
}

}  // namespace mezzotint::test
