#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>

#include "fuzz.h"
#include "mezzotint/adapter/key_map.h"
#include "mezzotint/adapter/stack.h"
#include "mezzotint/base/error.h"

/// Opens adapter files of every algorithm whose tensors were mutated, finds their layers in a small model, and applies
/// what fits. No key may get lost, and runs of rows must give what the whole gives.
namespace mezzotint::fuzz {
namespace {
namespace fs = std::filesystem;
using adapter::AdapterFile;

constexpr char kBlock[] = "diffusion_model.double_blocks.0.";

std::string random_floats(Rng& rng, size_t count) {
  std::string bytes(count * sizeof(float), '\0');
  for (size_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-52 - 1);
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  }
  return bytes;
}

void add(FileModel& file, Rng& rng, const std::string& name, const Shape& shape) {
  file.add(name, DType::f32, shape, random_floats(rng, element_count(shape).value_or(0)));
}

/// Layers: qkv [24, 8], proj [8, 8], a convolution [8, 4, 3], a norm [8].
void write_model(const fs::path& path) {
  if (fs::exists(path)) return;
  Rng rng(7);
  FileModel file;
  add(file, rng, std::string(kBlock) + "img_attn.qkv.weight", {24, 8});
  add(file, rng, std::string(kBlock) + "img_attn.qkv.bias", {24});
  add(file, rng, std::string(kBlock) + "img_attn.proj.weight", {8, 8});
  add(file, rng, std::string(kBlock) + "conv.weight", {8, 4, 3});
  add(file, rng, std::string(kBlock) + "norm.weight", {8});
  const std::string bytes = file.bytes();
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

struct SeedTensor {
  const char* name;
  Shape shape;
};

FileModel seed(Rng& rng, const std::vector<SeedTensor>& tensors) {
  FileModel file;
  for (const auto& [name, shape] : tensors) add(file, rng, std::string(name), shape);
  return file;
}

std::vector<FileModel> seeds() {
  Rng rng(1);
  return {
      seed(rng, {{"transformer.transformer_blocks.0.attn.to_k.lora_B.weight", {8, 2}},
                 {"transformer.transformer_blocks.0.attn.to_k.lora_A.weight", {2, 8}},
                 {"transformer.transformer_blocks.0.attn.to_k.lora_B.bias", {8}},
                 {"transformer.transformer_blocks.0.attn.to_k.lora_magnitude_vector", {8}},
                 {"transformer.transformer_blocks.0.attn.to_k.alpha", {}}}),
      seed(rng, {{"lora_unet_double_blocks_0_conv.lora_up.weight", {8, 2, 1}},
                 {"lora_unet_double_blocks_0_conv.lora_down.weight", {2, 4, 1}},
                 {"lora_unet_double_blocks_0_conv.lora_mid.weight", {2, 2, 3}},
                 {"lora_unet_double_blocks_0_conv.dora_scale", {1, 4, 1}},
                 {"lora_unet_double_blocks_0_norm.w_norm", {8}}}),
      seed(rng, {{"double_blocks.0.conv.hada_w1_a", {2, 8}},
                 {"double_blocks.0.conv.hada_w1_b", {2, 4}},
                 {"double_blocks.0.conv.hada_t1", {2, 2, 3}},
                 {"double_blocks.0.conv.hada_w2_a", {2, 8}},
                 {"double_blocks.0.conv.hada_w2_b", {2, 4}},
                 {"double_blocks.0.conv.hada_t2", {2, 2, 3}},
                 {"double_blocks.0.img_attn.proj.lokr_w1", {2, 2}},
                 {"double_blocks.0.img_attn.proj.lokr_w2_a", {4, 1}},
                 {"double_blocks.0.img_attn.proj.lokr_w2_b", {1, 4}},
                 {"double_blocks.0.conv.lokr_w1_a", {2, 1}},
                 {"double_blocks.0.conv.lokr_w1_b", {1, 2}},
                 {"double_blocks.0.conv.lokr_w2_a", {2, 4}},
                 {"double_blocks.0.conv.lokr_w2_b", {2, 2}},
                 {"double_blocks.0.conv.lokr_t2", {2, 2, 3}}}),
      seed(rng, {{"double_blocks.0.img_attn.qkv.oft_blocks", {6, 4, 4}},
                 {"double_blocks.0.img_attn.qkv.rescale", {24, 1}},
                 {"double_blocks.0.img_attn.qkv.alpha", {}},
                 {"double_blocks.0.img_attn.proj.oft_blocks", {2, 2, 4, 4}}}),
      seed(rng, {{"double_blocks.0.conv.a1.weight", {4, 2, 1}},
                 {"double_blocks.0.conv.a2.weight", {2, 4, 1}},
                 {"double_blocks.0.conv.b1.weight", {8, 2, 1}},
                 {"double_blocks.0.conv.b2.weight", {2, 4, 1}},
                 {"double_blocks.0.conv.bm.weight", {2, 2, 3}},
                 {"double_blocks.0.img_attn.proj.weight", {8}},
                 {"double_blocks.0.img_attn.proj.on_input", {}}}),
      seed(rng, {{"double_blocks.0.img_attn.proj.lora_up.weight", {10, 2}},
                 {"double_blocks.0.img_attn.proj.lora_down.weight", {2, 9}},
                 {"double_blocks.0.img_attn.proj.reshape_weight", {2}},
                 {"double_blocks.0.norm.set_weight", {8}},
                 {"double_blocks.0.img_attn.qkv.diff", {24, 8}},
                 {"double_blocks.0.img_attn.qkv.diff_b", {24}}}),
  };
}

// --- mutations: the header stays sound, so that what lies behind it is reached
// -----------------------------------------

Answer other_shape(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  Shape shape = entry.shape;
  const int64_t sizes[] = {0, 1, 2, 3, 4, 8, 9, 24, 64};
  if (shape.empty() || rng() % 4 == 0) {
    shape.insert(shape.begin() + static_cast<ptrdiff_t>(rng() % (shape.size() + 1)), sizes[rng() % std::size(sizes)]);
  } else if (rng() % 4 == 0) {
    shape.erase(shape.begin() + static_cast<ptrdiff_t>(rng() % shape.size()));
  } else {
    shape[rng() % shape.size()] = sizes[rng() % std::size(sizes)];
  }
  const size_t count = element_count(shape).value_or(1 << 20);
  if (count > 100'000) return "";
  file.replace(index, DType::f32, shape, random_floats(rng, count));
  return "";
}

Answer swapped_dimensions(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  Shape shape = entry.shape;
  std::shuffle(shape.begin(), shape.end(), rng);
  file.replace(index, entry.dtype, shape, file.data.substr(entry.begin, entry.end - entry.begin));
  return "";
}

Answer other_dtype(FileModel& file, Rng& rng) {
  const size_t index = rng() % file.entries.size();
  const Entry entry = file.entries[index];
  const auto& other = all_dtypes()[rng() % all_dtypes().size()];
  const auto bytes = byte_count(other.dtype, entry.shape);
  if (!bytes) return "";
  file.replace(index, other.dtype, entry.shape, std::string(*bytes, '\x38'));
  return "";
}

Answer removed(FileModel& file, Rng& rng) {
  if (file.entries.size() < 2) return "";
  file.remove(rng() % file.entries.size());
  return "";
}

/// A tensor stands under another target, or another suffix.
Answer renamed(FileModel& file, Rng& rng) {
  constexpr const char* suffixes[] = {".lora_up.weight",
                                      ".lora_A.weight",
                                      ".lora_A.style.weight",
                                      ".hada_w1_a",
                                      ".lokr_w1",
                                      ".lokr_w2",
                                      ".oft_blocks",
                                      ".a1.weight",
                                      ".alpha",
                                      ".dora_scale",
                                      ".diff",
                                      ".weight",
                                      ".weight_scale",
                                      ".on_input",
                                      ".ia3_l",
                                      ".set_weight",
                                      "",
                                      "."};
  constexpr const char* targets[] = {"double_blocks.0.conv",
                                     "lora_unet_double_blocks_0_img_attn_proj",
                                     "transformer.transformer_blocks.0.attn.to_q",
                                     "transformer.norm_out.linear",
                                     "lora_te1_x",
                                     "",
                                     "diffusion_model.double_blocks.0.norm.weight"};
  const size_t index = rng() % file.entries.size();
  const std::string name = std::string(targets[rng() % std::size(targets)]) + suffixes[rng() % std::size(suffixes)];
  for (const Entry& entry : file.entries)
    if (entry.name == name) return "";
  file.entries[index].name = name;
  file.entries[index].key = quote(name);
  return "";
}

Answer other_values(FileModel& file, Rng& rng) {
  const Entry& entry = file.entries[file.entry_with_data(rng)];
  const float values[] = {
      0, -0.0f, 1, 8, 9, -1, 1e-45f, 1e30f, std::nanf("1"), std::numeric_limits<float>::infinity(), 2.5f, 24, 1e9f};
  if (entry.dtype != DType::f32) return "";
  for (uint64_t at = entry.begin; at + 4 <= entry.end; at += 4)
    if (entry.end - entry.begin < 16 || rng() % 4 == 0)
      std::memcpy(file.data.data() + at, &values[rng() % std::size(values)], 4);
  return "";
}

Answer shuffled(FileModel& file, Rng& rng) {
  std::shuffle(file.entries.begin(), file.entries.end(), rng);
  return "";
}

Answer metadata(FileModel& file, Rng& rng) {
  const std::string values[] = {R"({"ss_network_module":"lycoris.kohya","ss_network_args":"{\"rs_lora\": true}"})",
                                R"({"ss_network_module":"lycoris.kohya","ss_network_args":"[[[["})",
                                R"({"lora_adapter_metadata":"{\"transformer.lora_alpha\": 4}"})",
                                R"({"lora_adapter_metadata":"{\"lora_alpha\": []}"})",
                                R"({"lora_adapter_metadata":"x"})"};
  file.top.clear();
  file.top.push_back({"\"__metadata__\"", values[rng() % std::size(values)]});
  return "";
}

// --- reading
// ----------------------------------------------------------------------------------------------------------

void check(bool right, const std::string& what) {
  if (!right) throw WrongRead{what};
}

/// Every tensor is a part of a patch, or an alpha or scale beside one, or named as unused.
void check_nothing_is_lost(const AdapterFile& file) {
  std::set<std::string> seen;
  const auto& tensors = file.source().tensors();
  for (const adapter::UnusedKey& key : file.unused()) {
    check(!key.reason.empty(), "no reason for " + key.key);
    check(seen.insert(key.key).second, key.key + " is left out twice");
  }
  std::set<std::string> targets;
  for (const adapter::Patch& patch : file.patches()) {
    targets.insert(patch.target);
    for (const adapter::Part& part : patch.parts.parts) seen.insert(tensors[part.tensor].name);
    if (patch.magnitude) seen.insert(tensors[patch.magnitude->tensor].name);
  }
  for (const io::TensorInfo& tensor : tensors) {
    const bool beside = tensor.name.ends_with(".alpha") || tensor.name.find("scale") != std::string::npos;
    check(beside || seen.contains(tensor.name), tensor.name + " is lost");
  }
}

void apply(const AdapterFile& file, const adapter::Patch& patch, const adapter::Match& match) {
  adapter::Stack stack(match.shape);
  stack.add(adapter::load(file, patch, stack.shape_of(match.target)), 0.5, match.target);
  const auto count = element_count(stack.shape()).value_or(0);
  if (count > 1'000'000) return;
  const std::vector<float> base(element_count(match.shape).value_or(0), 0.25f);
  std::vector<float> whole = adapter::grow(base, match.shape, stack.shape()), pieces = whole;
  stack.apply({0, adapter::matrix_rows(stack.shape())}, whole.data());
  for (const adapter::RowRun& run : stack.cut(3))
    stack.apply(run, pieces.data() + run.row0 * adapter::matrix_cols(stack.shape()));
  double largest = 0;
  for (const float x : whole) largest = std::max(largest, std::abs(static_cast<double>(x)));
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!std::isfinite(largest) || largest > 1e20) return;
    check(std::abs(static_cast<double>(whole[i]) - static_cast<double>(pieces[i])) <= 1e-4 * largest + 1e-30 ||
              std::isnan(whole[i]) || std::isnan(pieces[i]),
          "runs of rows differ from the whole of " + patch.target);
  }
}

void read(const fs::path& path, const FileModel*) {
  const fs::path model_path = fs::path(path) += ".model";
  write_model(model_path);
  const AdapterFile file = AdapterFile::open(path);
  check_nothing_is_lost(file);
  const auto model = checkpoint::Model::open(model_path);
  const adapter::Matching matching = adapter::KeyMap(model).match(file);
  check(matching.matches.size() + matching.unmatched.size() == file.patches().size(), "patches are lost");
  check(!adapter::summary(file, matching).empty(), "no summary");
  for (const adapter::Match& match : matching.matches) {
    try {
      apply(file, file.patches()[match.patch], match);
    } catch (const Error& error) {  // values that no header tells: reshape_weight, on_input
      check(error.name() == "adapter-shape", "an unexpected error: " + std::string(error.what()));
    }
  }
}

}  // namespace

Target target() {
  const std::vector<Mutation> mutations = {other_shape, swapped_dimensions, other_dtype, removed,
                                           renamed,     other_values,       shuffled,    metadata};
  return {.suffix = ".safetensors",
          .seeds = seeds(),
          .header_mutations = mutations,
          .outer_mutations = mutations,
          .required_answers = {"ok", "no-adapter", "bad-adapter", "bad-adapter-config"},
          .read = read};
}

}  // namespace mezzotint::fuzz
