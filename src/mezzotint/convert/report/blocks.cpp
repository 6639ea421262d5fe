#include "mezzotint/convert/report/blocks.h"

#include <algorithm>
#include <charconv>
#include <map>

namespace mezzotint::convert {
namespace {

// What a grid is gathered from: layers of one stack with distinct (type, block).
struct Stack {
  std::string name;
  std::vector<std::string> types;
  std::map<std::string, size_t, std::less<>> type_index;
  std::map<int, std::map<size_t, size_t>> blocks;  // block -> type -> layer
};

// Fewer are told one by one.
constexpr size_t kGridLayers = 6;

}  // namespace

BlockName split_block(std::string_view layer) {
  for (size_t start = 0; start < layer.size();) {
    const size_t dot = std::min(layer.find('.', start), layer.size());
    const std::string_view part = layer.substr(start, dot - start);
    int number = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (!part.empty() && part[0] != '-' && error == std::errc() && end == part.data() + part.size()) {
      BlockName name;
      name.stack = layer.substr(0, start > 0 ? start - 1 : 0);
      name.type = dot < layer.size() ? layer.substr(dot + 1) : std::string_view();
      name.block = number;
      return name;
    }
    start = dot + 1;
  }
  return {{}, std::string(layer), -1};
}

BlockMap block_map(const std::vector<ReportLayer>& layers) {
  BlockMap map;
  std::vector<Stack> stacks;
  std::map<std::string, size_t, std::less<>> stack_index;
  std::vector<size_t> outside;
  for (size_t i = 0; i < layers.size(); ++i) {
    const BlockName name = split_block(layers[i].name);
    if (name.block < 0) {
      outside.push_back(i);
      continue;
    }
    const auto [at, fresh] = stack_index.emplace(name.stack, stacks.size());
    if (fresh) stacks.push_back({name.stack, {}, {}, {}});
    Stack& stack = stacks[at->second];
    const auto [type, new_type] = stack.type_index.emplace(name.type, stack.types.size());
    if (new_type) stack.types.push_back(name.type);
    if (!stack.blocks[name.block].emplace(type->second, i).second) outside.push_back(i);
  }
  for (const Stack& stack : stacks) {
    size_t layers_here = 0;
    for (const auto& [block, cells] : stack.blocks) layers_here += cells.size();
    if (stack.blocks.size() < 2 || layers_here < kGridLayers) {
      for (const auto& [block, cells] : stack.blocks)
        for (const auto& [type, layer] : cells) outside.push_back(layer);
      continue;
    }
    BlockGrid grid;
    grid.stack = stack.name;
    grid.types = stack.types;
    grid.cells.assign(stack.types.size(), std::vector<size_t>(stack.blocks.size(), BlockGrid::kNone));
    for (const auto& [block, cells] : stack.blocks) {
      for (const auto& [type, layer] : cells) grid.cells[type][grid.blocks.size()] = layer;
      grid.blocks.push_back(block);
    }
    map.grids.push_back(std::move(grid));
  }
  std::sort(outside.begin(), outside.end());
  map.outside = std::move(outside);
  return map;
}

}  // namespace mezzotint::convert
