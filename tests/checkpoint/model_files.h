#pragma once
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "support/checkpoint_file.h"

/// What the tests of reading checkpoints share.
namespace mezzotint::checkpoint {

using Codes = std::multiset<std::string>;

class ModelFile : public testing::Test {
 protected:
  Model open(const test::RawFile& file) {
    test::write_raw(folder_ / "m.safetensors", file);
    return Model::open(folder_ / "m.safetensors");
  }
  static const Layer* find(const Model& model, const std::string& name) {
    for (const Layer& layer : model.layers())
      if (layer.name == name) return &layer;
    return nullptr;
  }
  static const Layer& only(const Model& model) {
    if (model.layers().size() != 1) throw std::runtime_error("expected one layer");
    return model.layers()[0];
  }
  /// Codes of the findings, without notes unless asked for.
  static std::multiset<std::string> codes(const Model& model, bool notes = false) {
    std::multiset<std::string> result;
    for (const Finding& finding : model.findings())
      if (notes || finding.severity != Severity::note) result.emplace(finding.code);
    return result;
  }
  static Role role(const Model& model, const std::string& tensor) { return model.role(model.source().find(tensor)); }
  static std::string name_of(const Model& model, size_t tensor) { return model.source().tensors().at(tensor).name; }
  static std::vector<float> floats(const Model& model, const Layer& layer, size_t parameter = 1) {
    const auto parameters = model.parameters(layer);
    std::vector<float> values(parameters.tensors.at(parameter).size() / sizeof(float));
    if (!values.empty())
      std::memcpy(values.data(), parameters.tensors[parameter].data(), values.size() * sizeof(float));
    return values;
  }
  test::TemporaryFolder folder_;
};

inline test::RawTensor codes_tensor(const std::string& dtype, std::vector<int64_t> shape) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  std::string bytes(static_cast<size_t>(count), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(0x30 + i % 0x20);
  return {dtype, std::move(shape), std::move(bytes)};
}
inline test::RawTensor bf16_tensor(std::vector<int64_t> shape, uint16_t code = 0x3f80) {
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  return {"BF16", std::move(shape), test::raw_bytes(std::vector<uint16_t>(static_cast<size_t>(count), code))};
}
inline std::vector<float> rising(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = 0.25f * static_cast<float>(i + 1);
  return values;
}
/// One layer "a" with codes, scale and a marker tensor.
inline test::RawFile one_layer(test::RawTensor codes, test::RawTensor scale, const std::string& marker) {
  test::RawFile file;
  file.tensors.emplace_back("a.weight", std::move(codes));
  file.tensors.emplace_back("a.weight_scale", std::move(scale));
  if (!marker.empty()) file.tensors.emplace_back("a.comfy_quant", test::text_tensor(marker));
  return file;
}

}  // namespace mezzotint::checkpoint
