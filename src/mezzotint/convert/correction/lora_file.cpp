#include "mezzotint/convert/correction/lora_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::convert {
namespace {

RewriteItem made_item(std::string name, DType dtype, Shape shape, std::vector<std::byte> bytes) {
  return {.spec = {std::move(name), dtype, std::move(shape)},
          .source = nullptr,
          .tensor = 0,
          .make = [bytes = std::move(bytes)] { return bytes; }};
}

}  // namespace

double root_ratio(double part, double whole) {
  return whole > 0 ? std::sqrt(std::max(part, 0.0) / whole) : 0;
}

LoraFile::LoraFile(DType dtype, int64_t rank) : dtype_(dtype) {
  if (rank < 1)
    throw Error({.name = "bad-option", .problem = "a LoRA has at least rank 1", .found = fmt::format("{}", rank)});
  if (dtype != DType::f16 && dtype != DType::bf16 && dtype != DType::f32)
    throw Error(
        {.name = "bad-option", .problem = "factors are stored as F16, BF16 or F32", .found = std::string(name(dtype))});
}

void LoraFile::check(const std::filesystem::path& output, const std::vector<const io::Source*>& inputs,
                     bool overwrite) {
  io::OutputPlan plan;
  plan.files.push_back({.path = output, .header = {}, .bytes = 0});
  for (const io::Source* input : inputs) refuse_input_as_output(*input, plan);
  if (!overwrite && std::filesystem::exists(output))
    throw Error({.name = "output-exists",
                 .problem = "the output exists already",
                 .file = output.string(),
                 .advice = "Choose another name or use --force."});
}

std::vector<std::byte> LoraFile::round(std::vector<float>& values) const {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<std::byte> bytes(values.size() * facts(dtype_).bits / 8);
  kernel::cast({values.data(), DType::f32, 1, count, count}, dtype_, bytes.data(), count);
  kernel::cast({bytes.data(), dtype_, 1, count, count}, DType::f32, values.data(), count);
  return bytes;
}

void LoraFile::add(const std::string& key, const Shape& weight, int64_t rank, std::vector<std::byte> up,
                   std::vector<std::byte> down, double alpha) {
  Shape up_shape(weight.size(), 1), down_shape = weight;
  up_shape[0] = weight[0];
  up_shape[1] = down_shape[0] = rank;
  items_.push_back(made_item(key + ".lora_up.weight", dtype_, std::move(up_shape), std::move(up)));
  items_.push_back(made_item(key + ".lora_down.weight", dtype_, std::move(down_shape), std::move(down)));
  const auto stored = static_cast<float>(alpha);
  const auto* bytes = reinterpret_cast<const std::byte*>(&stored);
  items_.push_back(made_item(key + ".alpha", DType::f32, {}, {bytes, bytes + sizeof stored}));
}

void LoraFile::add(std::string name, Shape shape, std::vector<std::byte> bytes) {
  items_.push_back(made_item(std::move(name), dtype_, std::move(shape), std::move(bytes)));
}

uint64_t LoraFile::write(const std::filesystem::path& output, const std::string& origin,
                         const std::vector<const io::Source*>& inputs, bool overwrite) const {
  io::OutputOptions layout;
  layout.metadata = {{std::string(kOriginKey), origin}};
  ExecuteOptions execute;
  execute.overwrite = overwrite;
  rewrite(output, items_, layout, execute, inputs);
  return std::filesystem::file_size(output);
}

}  // namespace mezzotint::convert
