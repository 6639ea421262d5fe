#pragma once
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "adapter/adapter_file.h"

/// The merges of make_golden.py.
namespace mezzotint::test {

struct GoldenMerge {
  std::string name;       ///< "lora conv2d core"
  std::string algorithm;  ///< as Algorithm::name, or "dora"
  std::string kind;       ///< "linear", "conv1d", "conv2d", "conv3d"
  adapter::Tensor weight;
  NamedTensors tensors;  ///< under the target "x"
  std::map<std::string, std::string> metadata;
  double strength = 1;
  std::vector<float> expected;

  /// Alpha counts per row: what the metadata says of OFT and BOFT.
  bool per_row() const { return !metadata.empty(); }
};

inline void PrintTo(const GoldenMerge& merge, std::ostream* out) {
  *out << merge.name;
}

inline std::vector<float> floats_from_hex(const std::string& hex) {
  std::vector<float> values(hex.size() / 8);
  for (size_t i = 0; i < values.size(); ++i) {
    unsigned char bytes[4];
    for (size_t b = 0; b < 4; ++b)
      bytes[b] = static_cast<unsigned char>(std::stoi(hex.substr(i * 8 + b * 2, 2), nullptr, 16));
    std::memcpy(&values[i], bytes, 4);
  }
  return values;
}

inline std::vector<GoldenMerge> golden_merges() {
  std::vector<GoldenMerge> cases;
  for (const auto& file : std::filesystem::directory_iterator(MEZZOTINT_SOURCE_DIR "/tests/adapter/golden")) {
    const nlohmann::json golden = read_json(file.path().string());
    for (const auto& entry : golden["cases"]) {
      GoldenMerge merge;
      merge.name = entry["name"];
      const size_t space = merge.name.find(' ');
      merge.algorithm = merge.name.substr(0, space);
      merge.kind = merge.name.substr(space + 1, merge.name.find(' ', space + 1) - space - 1);
      merge.weight = tensor_of(entry["weight"]);
      for (const auto& [suffix, tensor] : entry["tensors"].items())
        merge.tensors.emplace_back("x" + suffix, tensor_of(tensor));
      if (entry.contains("metadata")) merge.metadata = entry["metadata"].get<std::map<std::string, std::string>>();
      merge.strength = entry["strength"];
      merge.expected = floats_from_hex(entry["expected"].get<std::string>());
      cases.push_back(std::move(merge));
    }
  }
  return cases;
}

}  // namespace mezzotint::test
