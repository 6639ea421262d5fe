#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

/// Safetensors files written and read by hand, independent of the io room.
namespace mezzotint::test {

struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
  bool operator==(const RawTensor&) const = default;
};

struct RawFile {
  std::vector<std::pair<std::string, RawTensor>> tensors;
  std::map<std::string, std::string> metadata;

  const RawTensor* find(const std::string& name) const {
    for (const auto& [key, tensor] : tensors)
      if (key == name) return &tensor;
    return nullptr;
  }
  const RawTensor& at(const std::string& name) const {
    if (const RawTensor* tensor = find(name)) return *tensor;
    throw std::out_of_range(name);
  }
  RawTensor& at(const std::string& name) { return const_cast<RawTensor&>(std::as_const(*this).at(name)); }
};

template <class T>
std::string raw_bytes(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

inline RawTensor f32_tensor(std::vector<int64_t> shape, const std::vector<float>& values) {
  return {"F32", std::move(shape), raw_bytes(values)};
}
inline RawTensor text_tensor(const std::string& text) {
  return {"U8", {static_cast<int64_t>(text.size())}, text};
}

inline void write_raw(const std::filesystem::path& path, const RawFile& file) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!file.metadata.empty()) header["__metadata__"] = file.metadata;
  uint64_t offset = 0;
  std::string data;
  for (const auto& [name, tensor] : file.tensors) {
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&size), sizeof size);
  out << text << data;
  ASSERT_TRUE(out.good()) << path;
}

inline RawFile read_raw(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  RawFile file;
  uint64_t size = 0;
  if (all.size() < 8) {
    ADD_FAILURE() << "no safetensors file: " << path;
    return file;
  }
  std::memcpy(&size, all.data(), sizeof size);
  const auto header = nlohmann::ordered_json::parse(all.substr(8, size));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      file.metadata = entry.get<std::map<std::string, std::string>>();
      continue;
    }
    const auto begin = entry["data_offsets"][0].get<uint64_t>(), end = entry["data_offsets"][1].get<uint64_t>();
    file.tensors.emplace_back(name,
                              RawTensor{entry["dtype"], entry["shape"], all.substr(8 + size + begin, end - begin)});
  }
  return file;
}

/// A folder that is gone after the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mezzotint-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Two fp8 layers (all codes 1.0, scale 0.5), one bias, one plain tensor, both marker forms.
inline RawFile sound_fp8_file() {
  const std::string marker = R"({"format": "float8_e4m3fn"})";
  RawFile file;
  for (const std::string layer : {"a", "b"}) {
    file.tensors.emplace_back(layer + ".weight", RawTensor{"F8_E4M3", {4, 8}, std::string(32, '\x38')});
    file.tensors.emplace_back(layer + ".weight_scale", f32_tensor({}, {0.5f}));
    file.tensors.emplace_back(layer + ".comfy_quant", text_tensor(marker));
  }
  file.tensors.emplace_back("a.bias", f32_tensor({4}, {1, 2, 3, 4}));
  file.tensors.emplace_back("norm.weight", f32_tensor({3}, {1, 1, 1}));
  file.metadata["_quantization_metadata"] =
      R"({"format_version": "1.0", "layers": {"a": )" + marker + R"(, "b": )" + marker + "}}";
  file.metadata["title"] = "sound";
  return file;
}

}  // namespace mezzotint::test
