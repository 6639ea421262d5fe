#pragma once
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/checkpoint_file.h"

/// Layers as the reference bytes in a format's folder store them: also of formats that are only read.
namespace mezzotint::test {

inline std::string bytes_from_hex(const std::string& text) {
  std::string bytes(text.size() / 2, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

/// None of formats without reference bytes.
inline std::vector<nlohmann::json> reference_cases(std::string_view format) {
  std::ifstream list(std::filesystem::path(MEZZOTINT_BINARY_DIR) / "generated/format_folders.txt");
  std::string name, folder;
  while (list >> name && std::getline(list >> std::ws, folder))
    if (const std::filesystem::path path = folder + "/golden/reference.json"; name == format && exists(path))
      return nlohmann::json::parse(std::ifstream(path)).at("cases").get<std::vector<nlohmann::json>>();
  return {};
}

inline RawFile reference_file(const nlohmann::json& golden, const std::string& layer) {
  RawFile file;
  for (const auto& [suffix, tensor] : golden.at("tensors").items())
    file.tensors.emplace_back(layer + "." + suffix,
                              RawTensor{tensor.at("dtype"), tensor.at("shape"), bytes_from_hex(tensor.at("hex"))});
  if (golden.contains("marker"))
    file.tensors.emplace_back(layer + ".comfy_quant", text_tensor(golden["marker"].dump()));
  return file;
}

}  // namespace mezzotint::test
