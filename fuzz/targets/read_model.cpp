#include <cstring>

#include "fuzz.h"
#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/checkpoint/verify.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/plan.h"

/// Opens a checkpoint whose markers, scales and metadata were mutated; verifies it, plans conversions of it and decodes
/// its layers.
namespace mezzotint::fuzz {
namespace {
namespace fs = std::filesystem;
using checkpoint::Model;
using checkpoint::Role;

std::string counting(uint64_t size, char start) {
  std::string out(size, '\0');
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<char>(start + static_cast<char>(i * 13));
  return out;
}

std::string ones(uint64_t floats) {
  std::string out;
  for (uint64_t i = 0; i < floats; ++i) out.append("\0\0\x80\x3f", 4);
  return out;
}

/// Layers of a format as the format itself describes them: in a dialect with marker tensors, in the header, in none.
void add_layer(FileModel& file, const std::string& layer, const formats::Layout& layout, bool marked,
               std::vector<std::pair<std::string, std::string>>* header) {
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const auto& stored = layout.tensors[i];
    const uint64_t bytes = byte_count(stored.dtype, stored.shape).value();
    file.add(layer + "." + stored.suffix, stored.dtype, stored.shape,
             stored.dtype == DType::f32 ? ones(bytes / 4) : counting(bytes, static_cast<char>(i)));
  }
  const std::string marker = checkpoint::marker_text(layout, false);
  if (marked) file.add(layer + ".comfy_quant", DType::u8, {static_cast<int64_t>(marker.size())}, marker);
  if (header) header->emplace_back(layer, marker);
}

void set_metadata(FileModel& file, std::string_view key, std::string_view value) {
  file.top.push_back({"\"__metadata__\"", "{" + quote(key) + ":" + quote(value) + "}"});
}

std::vector<FileModel> seeds() {
  std::vector<FileModel> all(4);
  std::vector<std::pair<std::string, std::string>> header;
  int number = 0;
  for (const auto* format : formats::all_formats()) {
    if (!format->quantized) continue;
    const auto description = format->describe({{256, 128}}, formats::complete_options(*format, {}));
    if (!description.layout) continue;
    const std::string layer = "blocks." + std::to_string(number++) + ".q";
    add_layer(all[0], layer, *description.layout, true, nullptr);
    add_layer(all[1], layer, *description.layout, true, &header);
    add_layer(all[2], layer, *description.layout, false, nullptr);
    all[0].add(layer + ".input_scale", DType::f32, {}, ones(1));
  }
  set_metadata(all[1], checkpoint::kHeaderKey, checkpoint::header_text(header));
  all[2].add("plain.weight", DType::bf16, {32, 16}, counting(1024, 3));

  // The legacy dialect.
  all[3].add("scaled_fp8", DType::f8_e4m3, {2}, "ab");
  all[3].add("a.weight", DType::f8_e4m3, {16, 16}, counting(256, 1));
  all[3].add("a.scale_weight", DType::f32, {}, ones(1));
  all[3].add("a.scale_input", DType::f32, {}, ones(1));
  all[3].add("b.weight", DType::bf16, {16, 16}, counting(512, 1));
  all[3].add("b.scale_weight", DType::f32, {1}, ones(1));
  return all;
}

// --- mutations: each keeps the header sound, so that what lies behind it is reached
// ------------------------------------

Entry& any_entry(FileModel& file, Rng& rng) {
  return file.entries[rng() % file.entries.size()];
}

bool is_marker(const Entry& entry) {
  return entry.name.ends_with(".comfy_quant");
}

/// Texts that a marker or the header may hold in place of what they should; @ becomes the name of some format.
std::string odd_json(Rng& rng) {
  static const std::string deep = std::string(3000, '[') + std::string(3000, ']');
  const std::string texts[] = {
      "",
      "{}",
      "[]",
      "null",
      "\"@\"",
      R"({"format": 7})",
      R"({"format": "from_the_future", "a": {"b": [1, 2]}})",
      R"({"format": "@", "full_precision_matrix_mult": "yes", "params": []})",
      R"({"format": "@", "per_row": true, "convrot": true, "params": {"format": "x"}})",
      R"({"format": "@", "group_size": -1})",
      R"({"format": "@", "group_size": 1e400})",
      R"({"format": "@", "group_size": 18446744073709551615})",
      R"({"format": "@"})",
      R"({"format": "", "format": "@"})",
      "{\"format\": \"\xff\xfe\"}",
      R"({"format": "\ud800"})",
      R"({"format": "@", "x": )" + deep + "}",
      deep,
  };
  std::string text = texts[rng() % std::size(texts)];
  const auto formats = formats::all_formats();
  for (size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at))
    text.replace(at, 1, formats[rng() % formats.size()]->name);
  return text;
}

Answer other_marker(FileModel& file, Rng& rng) {
  for (size_t tries = 0; tries < 20; ++tries) {
    const size_t index = rng() % file.entries.size();
    if (!is_marker(file.entries[index])) continue;
    const std::string text = odd_json(rng);
    file.replace(index, DType::u8, {static_cast<int64_t>(text.size())}, text);
    return "ok";
  }
  return "ok";
}

Answer other_metadata(FileModel& file, Rng& rng) {
  file.top.clear();
  const std::string inner = odd_json(rng);
  const std::string layer = file.entries[rng() % file.entries.size()].name;
  const std::string name = layer.substr(0, layer.rfind('.'));
  std::string text;
  switch (rng() % 3) {
    case 0:
      text = inner;
      break;
    case 1:
      text = R"({"layers": )" + (inner.empty() ? "{}" : inner) + "}";
      break;
    default:
      text = R"({"layers": {)" + quote(rng() % 2 ? name : "model.diffusion_model." + name) + ": " +
             (inner.empty() ? "1" : inner) + "}}";
  }
  if (text.find('\xff') != std::string::npos) text = "x";  // the header itself must stay UTF-8
  set_metadata(file, checkpoint::kHeaderKey, text);
  return "ok";
}

Answer other_shape(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  if (is_marker(entry)) return "ok";
  Shape shape = entry.shape;
  switch (rng() % 6) {
    case 0:
      shape = {};
      break;
    case 1:
      shape = {1};
      break;
    case 2:
      shape.push_back(1);
      break;
    case 3:
      shape.insert(shape.begin(), static_cast<int64_t>(rng() % 3));
      break;
    case 4:
      if (!shape.empty()) shape[rng() % shape.size()] = static_cast<int64_t>(rng() % 5);
      break;
    default:
      if (shape.size() > 1) std::swap(shape.front(), shape.back());
  }
  file.replace(index, entry.dtype, shape, counting(byte_count(entry.dtype, shape).value(), static_cast<char>(rng())));
  return "ok";
}

Answer other_dtype(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  DType dtype = all_dtypes()[rng() % all_dtypes().size()].dtype;
  if (!byte_count(dtype, entry.shape)) dtype = DType::f16;
  file.replace(index, dtype, entry.shape, counting(byte_count(dtype, entry.shape).value(), static_cast<char>(rng())));
  return "ok";
}

Answer other_values(FileModel& file, Rng& rng) {
  const Entry& entry = any_entry(file, rng);
  if (entry.begin == entry.end) return "ok";
  Entry& changed = const_cast<Entry&>(entry);
  changed.touched = true;
  for (uint64_t i = entry.begin; i < entry.end; ++i)
    if (rng() % 4 == 0) file.data[i] = static_cast<char>(rng() % 3 == 0 ? 0xff : rng());
  return "ok";
}

Answer renamed(FileModel& file, Rng& rng) {
  static const std::string_view suffixes[] = {
      "weight", "weight_scale",    "scale_weight", "scale_input", "input_scale", "comfy_quant", "scaled_fp8", "bias",
      "",       "pre_quant_scale", "odd"};
  const size_t index = rng() % file.entries.size();
  const std::string old = file.entries[index].name;
  const size_t dot = old.rfind('.');
  const std::string layer = dot == std::string::npos || rng() % 5 == 0 ? "" : old.substr(0, dot + 1);
  const std::string name = layer + std::string(suffixes[rng() % std::size(suffixes)]);
  for (const Entry& entry : file.entries)
    if (entry.name == name) return "ok";
  file.entries[index].name = name;
  const Entry entry = file.entries[index];
  file.replace(index, entry.dtype, entry.shape, file.data.substr(entry.begin, entry.end - entry.begin));
  return "ok";
}

Answer removed(FileModel& file, Rng& rng) {
  if (file.entries.size() > 1) file.remove(rng() % file.entries.size());
  file.touch_all();
  return "ok";
}

// --- reading
// ----------------------------------------------------------------------------------------------------------

void check(bool right, const std::string& what) {
  if (!right) throw WrongRead{what};
}

void check_model(const Model& model) {
  const auto& tensors = model.source().tensors();
  std::vector<int> owners(tensors.size(), 0);
  for (size_t index = 0; index < model.layers().size(); ++index) {
    const auto& layer = model.layers()[index];
    check(layer.layout.format != nullptr && layer.layout.format->quantized, "a layer has no format");
    check(!layer.consistent || layer.parts.size() == layer.layout.tensors.size(), "a consistent layer lacks a part");
    for (const size_t part : layer.parts) {
      ++owners[part];
      check(model.layer_of(part) == index, "a part does not know its layer");
    }
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Role role = model.role(i);
    check(owners[i] == (role == Role::codes || role == Role::parameter ? 1 : 0), "roles and parts differ");
    check(!model.is_foreign(i) || (role == Role::plain && model.layer_of(i) == Model::npos),
          "role of a foreign tensor");
  }
}

void decode(const Model& model) {
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (const auto& layer : model.layers()) {
    if (!layer.consistent) continue;
    const checkpoint::WeightValues weight(model, layer);
    const auto runs = checkpoint::cut_runs(weight, nullptr, 1000);
    if (runs.empty()) continue;
    values.resize(runs.back().count);
    weight.read(runs.back().first, runs.back().count, values.data(), bytes);
  }
}

void plan_each(const Model& model, const fs::path& output) {
  for (const auto* format : formats::all_formats()) {
    if (!format->writable) continue;
    const auto plan = convert::make_plan(model, output, {.to = std::string(format->name), .preset = "none"}, 2);
    uint64_t bytes = 0;
    for (const auto& file : plan.layout.files) bytes += file.bytes;
    check(bytes == plan.layout.total_bytes, "size of the output");
    check(!convert::to_json(plan).empty(), "no JSON");
    std::vector<int> rows(model.source().tensors().size(), 0);
    for (const auto& row : plan.rows) ++rows[row.source];
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool beside = model.layer_of(i) != Model::npos && model.role(i) != Role::codes;
      check(rows[i] == 1 || (rows[i] == 0 && beside),
            "tensor '" + model.source().tensors()[i].name + "' has " + std::to_string(rows[i]) + " rows in the plan");
    }
  }
}

void read_all(const fs::path& path, const FileModel* file) {
  const auto model = Model::open(path);
  check_model(model);
  for (const auto& finding : checkpoint::verify(model, {.threads = 1}))
    check(!finding.message.empty() && !finding.code.empty(), "a finding says nothing");
  decode(model);
  plan_each(model, fs::path(path) += ".out");
  if (file == nullptr) return;
  bool touched = !file->top.empty();
  for (const Entry& entry : file->entries) touched |= entry.touched;
  check(touched || !model.layers().empty(), "nothing was found in a sound file");
}

/// The mutations leave the header sound: whatever the tensors mean, such a file can be read, judged and planned.
void read(const fs::path& path, const FileModel* file) {
  try {
    read_all(path, file);
  } catch (const Error& error) {
    if (file == nullptr) throw;
    throw WrongRead{error.what()};
  }
}

}  // namespace

Target target() {
  const std::vector<Mutation> mutations = {other_marker, other_metadata, other_shape, other_dtype,
                                           other_values, renamed,        removed};
  return {.suffix = ".safetensors",
          .seeds = seeds(),
          .header_mutations = mutations,
          .outer_mutations = mutations,
          .required_answers = {"ok"},
          .read = read};
}

}  // namespace mezzotint::fuzz
