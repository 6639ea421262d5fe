#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "fuzz.h"
#include "mezzotint/base/error.h"
#include "mezzotint/io/reader.h"

/// Opens a safetensors file and reads every tensor.
namespace mezzotint::fuzz {
namespace {
namespace fs = std::filesystem;

std::string counting(size_t size, char start) {
  std::string out(size, '\0');
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<char>(start + static_cast<char>(i * 13));
  return out;
}

std::vector<FileModel> seeds() {
  std::vector<FileModel> all(3);
  all[0].add("model.layer.0.weight", DType::bf16, {4, 6}, counting(48, 1));
  all[0].add("model.layer.0.weight_scale", DType::f32, {}, counting(4, 2));
  all[0].add("model.layer.0.comfy_quant", DType::u8, {17}, "{\"format\": \"any\"}");
  all[0].add("model.layer.1.weight", DType::f8_e4m3, {3, 5}, counting(15, 3));

  all[1].add("empty", DType::f16, {0, 3}, "");
  all[1].add("a", DType::i64, {1}, counting(8, 4));
  all[1].add("also empty", DType::boolean, {2, 0}, "");
  all[1].add("\xc3\xa9 \"\\\n", DType::f4, {2, 6}, counting(6, 5));
  all[1].add("end", DType::u8, {0}, "");

  for (int i = 0; i < 40; ++i)
    all[2].add("blocks." + std::to_string(i), i % 2 ? DType::i8 : DType::u16, {2, 1 + i % 3},
               counting(static_cast<size_t>(2 * (1 + i % 3) * (i % 2 ? 1 : 2)), static_cast<char>(i)));
  return all;
}

void check(bool right, const std::string& what) {
  if (!right) throw WrongRead{what};
}

std::string content(const io::Source& source, size_t tensor) {
  const auto bytes = source.read_all(tensor);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What the library read must be what another parser finds in the same bytes.
void check_against_bytes(const io::Source& source, const std::string& file) {
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file[i]);
  const auto header = nlohmann::json::parse(file.begin() + 8, file.begin() + 8 + static_cast<std::ptrdiff_t>(length));
  size_t tensors = 0;
  uint64_t data = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    ++tensors;
    const size_t found = source.find(name);
    check(found != io::Source::npos, "tensor '" + name + "' is lost");
    const auto& info = source.tensors()[found];
    const uint64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    check(mezzotint::name(info.dtype) == entry["dtype"].get<std::string>(), "dtype of '" + name + "'");
    check(info.shape == entry["shape"].get<Shape>(), "shape of '" + name + "'");
    check(content(source, found) == file.substr(8 + length + begin, end - begin), "bytes of '" + name + "'");
    data += end - begin;
  }
  check(tensors == source.tensors().size(), "number of tensors");
  check(8 + length + data == file.size(), "tensors do not fill the file");
  size_t metadata = header.contains("__metadata__") ? header["__metadata__"].size() : 0;
  check(metadata == source.metadata().size(), "number of metadata entries");
  for (const auto& [key, value] : source.metadata())
    check(header["__metadata__"][key].get<std::string>() == value, "metadata '" + key + "'");
}

/// What a mutation did not touch must come back as it was put in.
void check_against_model(const io::Source& source, const FileModel& model) {
  for (const auto& entry : model.entries) {
    if (entry.touched) continue;
    const size_t found = source.find(entry.name);
    check(found != io::Source::npos, "untouched tensor '" + entry.name + "' is lost");
    const auto& info = source.tensors()[found];
    check(info.dtype == entry.dtype && info.shape == entry.shape, "untouched tensor '" + entry.name + "' has changed");
    check(content(source, found) == model.data.substr(entry.begin, entry.end - entry.begin),
          "bytes of untouched tensor '" + entry.name + "'");
  }
}

void read(const fs::path& path, const FileModel* model) {
  const auto source = io::Source::open(path);
  std::ifstream in(path, std::ios::binary);
  check_against_bytes(source, {std::istreambuf_iterator<char>(in), {}});
  if (model) check_against_model(source, *model);
}

}  // namespace

Target target() {
  Target out{.suffix = ".safetensors",
             .seeds = seeds(),
             .header_mutations = header_mutations(),
             .outer_mutations = outer_mutations(),
             .required_answers = {"ok"},
             .read = read};
  for (const auto& error : io::all_header_errors()) out.required_answers.push_back(error.name);
  return out;
}

}  // namespace mezzotint::fuzz
