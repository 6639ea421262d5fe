#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/report/report.h"

/// Where a layer stands in the model, from its name.
namespace mezzotint::convert {

/// "blocks.12.self_attn.q" is in stack "blocks", block 12, and of type "self_attn.q". The first number between dots (or
/// at an end) counts; a name without one has block -1 and is its own type.
struct BlockName {
  std::string stack, type;
  int block = -1;
};
BlockName split_block(std::string_view layer);

/// A stack of blocks as a grid: rows are types of layers, columns are blocks.
struct BlockGrid {
  static constexpr size_t kNone = static_cast<size_t>(-1);
  std::string stack;
  std::vector<int> blocks;                 ///< in ascending order
  std::vector<std::string> types;          ///< in the order of the file
  std::vector<std::vector<size_t>> cells;  ///< [type][block] -> layer, or kNone
};
struct BlockMap {
  std::vector<BlockGrid> grids;
  std::vector<size_t> outside;  ///< layers of no stack, and those of stacks too small for a grid
};
BlockMap block_map(const std::vector<ReportLayer>& layers);

}  // namespace mezzotint::convert
