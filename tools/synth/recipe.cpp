#include "synth/recipe.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "mezzotint/base/error.h"

namespace mezzotint::synth {
namespace {

using nlohmann::json;

constexpr int64_t kMaxMultiple = 32;  // of a width, in one dimension

Error bad_recipe(std::string problem) {
  return Error({.name = "recipe", .problem = std::move(problem)});
}

DType parse_dtype(const std::string& text) {
  const auto dtype = dtype_from_name(text);
  if (!dtype) throw bad_recipe("unknown dtype '" + text + "'");
  return *dtype;
}

std::vector<ShapeRow> parse_rows(const json& rows, DType dtype) {
  std::vector<ShapeRow> out;
  for (const auto& row : rows)
    out.push_back({row.at("name").get<std::string>(), row.at("shape").get<Shape>(),
                   row.contains("dtype") ? parse_dtype(row["dtype"].get<std::string>()) : dtype});
  return out;
}

ShapeFile parse(const json& j) {
  ShapeFile file{.name = j.at("name"), .prefix = j.at("prefix")};
  const DType dtype = parse_dtype(j.at("dtype").get<std::string>());
  for (const auto& width : j.at("widths")) {
    const auto w = width.get<int64_t>();
    if (w <= 0) throw bad_recipe("a width is not positive");
    file.widths.push_back(w);
  }
  for (const auto& group : j.at("blocks")) {
    BlockGroup out{.prefix = group.at("prefix")};
    if (group.contains("indices")) {
      out.indices = group["indices"].get<std::vector<int64_t>>();
    } else {
      out.indices.resize(group.at("count").get<size_t>());
      std::iota(out.indices.begin(), out.indices.end(), group.value("first", int64_t{0}));
    }
    if (out.indices.empty()) throw bad_recipe("a block group has no block");
    out.tensors = parse_rows(group.at("tensors"), dtype);
    file.blocks.push_back(std::move(out));
  }
  file.tensors = parse_rows(j.at("tensors"), dtype);
  return file;
}

/// Groups of one prefix.
struct Stack {
  std::map<int64_t, const BlockGroup*> blocks;

  int64_t count() const { return blocks.rbegin()->first + 1; }
  const BlockGroup* at(int64_t index) const {
    const auto found = blocks.find(index);
    if (found != blocks.end()) return found->second;
    return index >= count() ? blocks.rbegin()->second : nullptr;
  }
};

class Expander {
 public:
  Expander(const ShapeFile& file, const RecipeOptions& options) : file_(file), options_(options) {
    for (const auto& group : file.blocks) {
      auto found = std::find_if(stacks_.begin(), stacks_.end(), [&](auto& s) { return s.first == group.prefix; });
      if (found == stacks_.end()) found = stacks_.insert(stacks_.end(), {group.prefix, {}});
      for (const auto i : group.indices) found->second.blocks[i] = &group;
    }
  }

  int64_t deepest() const {
    int64_t n = 0;
    for (const auto& [prefix, stack] : stacks_) n = std::max(n, stack.count());
    return n;
  }

  /// `blocks_of(published count)` says how many blocks a stack gets.
  template <class F>
  std::vector<io::TensorSpec> specs(F blocks_of) const {
    std::vector<io::TensorSpec> out;
    for (const auto& [prefix, stack] : stacks_) {
      const int64_t n = blocks_of(stack.count());
      for (int64_t i = 0; i < n; ++i)
        if (const BlockGroup* group = stack.at(i))
          for (const auto& row : group->tensors) out.push_back(spec(prefix + std::to_string(i) + "." + row.name, row));
    }
    for (const auto& row : file_.tensors) out.push_back(spec(row.name, row));
    return out;
  }

 private:
  io::TensorSpec spec(const std::string& name, const ShapeRow& row) const {
    Shape shape = row.shape;
    if (options_.scale != 1)
      for (auto& d : shape) d = scaled(d);
    const DType dtype = options_.dtype && facts(row.dtype).is_float ? *options_.dtype : row.dtype;
    return {options_.prefix + file_.prefix + name, dtype, std::move(shape)};
  }

  int64_t scaled(int64_t d) const {
    for (const auto w : file_.widths)
      if (d > 0 && d % w == 0 && d / w <= kMaxMultiple) return d / w * scaled_width(w, options_.scale);
    return d;
  }

  const ShapeFile& file_;
  const RecipeOptions& options_;
  std::vector<std::pair<std::string, Stack>> stacks_;  // in the file's order
};

std::vector<io::TensorSpec> expand_to_size(const Expander& expander, uint64_t size) {
  const int64_t deepest = expander.deepest();
  if (deepest == 0) return expander.specs([](int64_t n) { return n; });
  const auto with = [&](int64_t blocks) {
    return expander.specs([&](int64_t n) {
      return std::max<int64_t>(
          1, std::llround(static_cast<double>(n) * static_cast<double>(blocks) / static_cast<double>(deepest)));
    });
  };
  const auto distance = [&](uint64_t bytes) { return bytes > size ? bytes - size : size - bytes; };
  auto best = with(1);
  uint64_t best_bytes = data_bytes(best);
  for (int64_t blocks = 2; best_bytes < size; ++blocks) {
    auto next = with(blocks);
    const uint64_t bytes = data_bytes(next);
    if (distance(bytes) >= distance(best_bytes)) break;
    best = std::move(next);
    best_bytes = bytes;
  }
  return best;
}

}  // namespace

ShapeFile read_shape_file(const std::filesystem::path& path) {
  const auto fail = [&](std::string problem) {
    return Error({.name = "shape-file",
                  .problem = std::move(problem),
                  .file = path.string(),
                  .advice = "Use a file of tools/shapes."});
  };
  std::ifstream in(path);
  if (!in) throw fail("cannot be read");
  try {
    return parse(json::parse(in));
  } catch (const json::exception& e) {
    throw fail(e.what());
  } catch (const Error& e) {
    throw fail(e.info().problem);
  }
}

int64_t scaled_width(int64_t width, double f) {
  const int64_t quantum = std::gcd(width, int64_t{128});
  const auto steps = std::llround(static_cast<double>(width) * f / static_cast<double>(quantum));
  return std::max<int64_t>(1, steps) * quantum;
}

uint64_t data_bytes(const std::vector<io::TensorSpec>& specs) {
  uint64_t sum = 0;
  for (const auto& spec : specs) {
    const auto bytes = byte_count(spec.dtype, spec.shape);
    if (!bytes)
      throw Error({.name = "recipe",
                   .problem = "the shape has no byte size",
                   .tensor = spec.name,
                   .found = to_string(spec.shape)});
    sum += *bytes;
  }
  return sum;
}

std::vector<io::TensorSpec> expand(const ShapeFile& file, const RecipeOptions& options) {
  if (!(options.scale > 0 && options.scale <= 16)) throw bad_recipe("the scale must be above 0 and at most 16");
  if (options.blocks && options.size) throw bad_recipe("give a number of blocks or a size, not both");
  if (options.blocks && (*options.blocks < 0 || *options.blocks > 100'000))
    throw bad_recipe("the number of blocks must be 0 to 100000");
  const Expander expander(file, options);
  if (options.size) return expand_to_size(expander, *options.size);
  return expander.specs([&](int64_t n) { return options.blocks.value_or(n); });
}

}  // namespace mezzotint::synth
