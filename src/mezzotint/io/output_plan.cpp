#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <string_view>

#include "mezzotint/base/error.h"
#include "mezzotint/io/header.h"
#include "mezzotint/io/text.h"
#include "mezzotint/io/writer.h"

namespace mezzotint::io {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMetadataKey = "__metadata__";

[[noreturn]] void fail(std::string_view name, const fs::path& path, std::string problem, const std::string& tensor = {},
                       std::string found = {}, std::string advice = {}) {
  throw Error({.name = name,
               .problem = std::move(problem),
               .file = path.string(),
               .tensor = printable(tensor),
               .found = std::move(found),
               .advice = std::move(advice)});
}

void append_entry(std::string& out, const TensorSpec& spec, uint64_t begin, uint64_t end) {
  append_json_string(out, spec.name);
  out += ":{\"dtype\":\"";
  out += name(spec.dtype);
  out += "\",\"shape\":[";
  for (size_t i = 0; i < spec.shape.size(); ++i) {
    if (i) out += ',';
    out += std::to_string(spec.shape[i]);
  }
  out += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(end) + "]}";
}

/// `"__metadata__":{...}`, or nothing.
std::string metadata_json(const Metadata& metadata) {
  std::string out;
  if (metadata.empty()) return out;
  append_json_string(out, kMetadataKey);
  out += ":{";
  for (size_t i = 0; i < metadata.size(); ++i) {
    if (i) out += ',';
    append_json_string(out, metadata[i].first);
    out += ':';
    append_json_string(out, metadata[i].second);
  }
  return out += '}';
}

std::string with_length(std::string_view json) {
  std::string out;
  const uint64_t padded = (json.size() + 7) / 8 * 8;
  out.reserve(8 + padded);
  for (int i = 0; i < 8; ++i) out += static_cast<char>(padded >> (8 * i) & 0xff);
  out += json;
  return out.append(padded - json.size(), ' ');
}

void check_metadata(const fs::path& path, const Metadata& metadata) {
  std::vector<std::string_view> keys;
  for (const auto& [key, value] : metadata) {
    if (find_invalid_utf8(key) != std::string_view::npos || find_invalid_utf8(value) != std::string_view::npos)
      fail("bad-name", path, "the metadata entry '" + printable(key) + "' is not UTF-8");
    keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice != keys.end())
    fail("duplicate-metadata", path, "two metadata entries have the key '" + printable(*twice) + "'");
}

void check_names(const fs::path& path, const std::vector<TensorSpec>& specs) {
  std::vector<std::string_view> names;
  for (const auto& spec : specs) {
    if (find_invalid_utf8(spec.name) != std::string_view::npos)
      fail("bad-name", path, "the tensor's name is not UTF-8", spec.name);
    if (spec.name == kMetadataKey) fail("bad-name", path, "the tensor's name is reserved for metadata", spec.name);
    names.push_back(spec.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    fail("duplicate-tensor", path, "two tensors of the output have this name", std::string(*twice));
}

/// Positions of the specs in every shard, in the order given. Headers are counted with the longest offsets, so that a
/// file can only come out smaller than its limit.
std::vector<std::vector<size_t>> fill_shards(const std::vector<TensorSpec>& specs, const std::vector<TensorInfo>& infos,
                                             uint64_t base, uint64_t limit) {
  std::vector<std::vector<size_t>> shards(1);
  uint64_t used = base;
  std::string entry;
  for (size_t i = 0; i < specs.size(); ++i) {
    entry.clear();
    append_entry(entry, specs[i], UINT64_MAX, UINT64_MAX);
    const uint64_t cost = entry.size() + 1 + infos[i].bytes;
    if (limit != 0 && !shards.back().empty() && used + cost > limit) {
      shards.emplace_back();
      used = base;
    }
    shards.back().push_back(i);
    used += cost;
  }
  return shards;
}

/// Orders one shard and gives its tensors their places and its file its header.
OutputPlan::File lay_out(const fs::path& path, size_t file, std::vector<size_t> members,
                         const std::vector<TensorSpec>& specs, const std::string& metadata,
                         std::vector<TensorInfo>& infos) {
  std::stable_sort(members.begin(), members.end(), [&](size_t a, size_t b) { return specs[a].dtype < specs[b].dtype; });
  std::string json = "{" + metadata;
  uint64_t end = 0;
  for (const size_t i : members) {
    if (json.size() > 1) json += ',';
    append_entry(json, specs[i], end, end + infos[i].bytes);
    infos[i].file = file;
    infos[i].offset = end;
    end += infos[i].bytes;
  }
  json += '}';
  OutputPlan::File out{.path = path, .header = with_length(json)};
  if (out.header.size() - 8 > kMaxHeaderBytes)
    fail("header-too-large", path, "the header of the output is too large", {},
         std::to_string(out.header.size() - 8) + " bytes", "Split the output into shards or remove metadata");
  for (const size_t i : members) infos[i].offset += out.header.size();
  out.bytes = out.header.size() + end;
  return out;
}

/// As Hugging Face writes it: sorted, indented by two.
std::string index_text(const OutputPlan& plan) {
  std::map<std::string_view, size_t> shard_of;
  uint64_t data = 0;
  for (const auto& tensor : plan.tensors) {
    shard_of.emplace(tensor.name, tensor.file);
    data += tensor.bytes;
  }
  std::string out = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(data) + "\n  },\n  \"weight_map\": {";
  const char* separator = "\n    ";
  for (const auto& [tensor, file] : shard_of) {
    out += separator;
    append_json_string(out, tensor);
    out += ": ";
    append_json_string(out, plan.files[file].path.filename().string());
    separator = ",\n    ";
  }
  return out + "\n  }\n}\n";
}

fs::path shard_path(const fs::path& path, size_t number, size_t count) {
  std::string stem = path.filename().string();
  constexpr std::string_view suffix = ".safetensors";
  if (stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  char numbers[64];
  std::snprintf(numbers, sizeof numbers, "-%05zu-of-%05zu", number, count);
  return path.parent_path() / (stem + numbers + std::string(suffix));
}

}  // namespace

OutputPlan plan_output(const fs::path& path, const std::vector<TensorSpec>& specs, const OutputOptions& options) {
  check_metadata(path, options.metadata);
  check_names(path, specs);
  OutputPlan plan;
  uint64_t data = 0;
  for (const auto& spec : specs) {
    const auto bytes = byte_count(spec.dtype, spec.shape);
    if (!bytes || *bytes > (uint64_t{1} << 62) - data)
      fail("bad-shape", path, "the shape cannot be stored", spec.name,
           std::string(name(spec.dtype)) + " " + to_string(spec.shape));
    data += *bytes;
    plan.tensors.push_back({.name = spec.name, .dtype = spec.dtype, .shape = spec.shape, .bytes = *bytes});
  }

  const std::string metadata = metadata_json(options.metadata);
  const uint64_t base = 8 + 2 + metadata.size() + 7;  // length, braces, padding
  const auto shards = fill_shards(specs, plan.tensors, base, options.max_shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const fs::path file = shards.size() == 1 ? path : shard_path(path, i + 1, shards.size());
    plan.files.push_back(lay_out(file, i, shards[i], specs, metadata, plan.tensors));
    plan.total_bytes += plan.files.back().bytes;
  }
  if (shards.size() > 1) {
    const std::string file = path.filename().string();
    const bool has_suffix = file.ends_with(".safetensors");
    plan.index_path = path.parent_path() / (file + (has_suffix ? "" : ".safetensors") + ".index.json");
    plan.index_json = index_text(plan);
    plan.total_bytes += plan.index_json.size();
  }
  return plan;
}

}  // namespace mezzotint::io
