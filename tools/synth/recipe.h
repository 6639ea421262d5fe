#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "mezzotint/base/dtype.h"
#include "mezzotint/io/writer.h"

/// Checkpoints with true names and shapes and made-up values: tools/shapes/README.md describes the shape files and the
/// rules for more or fewer blocks and for narrower copies.
namespace mezzotint::synth {

/// A tensor of a shape file; `name` lacks the prefixes.
struct ShapeRow {
  std::string name;
  Shape shape;
  DType dtype;
};

/// Equal blocks of one stack.
struct BlockGroup {
  std::string prefix;
  std::vector<int64_t> indices;  ///< ascending
  std::vector<ShapeRow> tensors;
};

/// A parsed tools/shapes/*.json.
struct ShapeFile {
  std::string name;
  std::string prefix;
  std::vector<int64_t> widths;  ///< in the file's order
  std::vector<BlockGroup> blocks;
  std::vector<ShapeRow> tensors;
};

/// Throws Error "shape-file" naming what is wrong with the file.
ShapeFile read_shape_file(const std::filesystem::path& path);

struct RecipeOptions {
  std::optional<int64_t> blocks;  ///< of every stack; default: as published
  std::optional<uint64_t> size;  ///< bytes of data to come close to, by the number of blocks (all stacks in proportion)
  double scale = 1;              ///< of the widths
  std::optional<DType> dtype;    ///< of the tensors of a float dtype
  std::string prefix;            ///< put before every name
};

/// The tensors of the checkpoint. With `size` the number of blocks, at least one per stack, is the one whose data comes
/// closest. Throws Error "recipe" on a contradiction or values out of range.
std::vector<io::TensorSpec> expand(const ShapeFile& file, const RecipeOptions& options);

/// The width w scaled by f: a multiple of gcd(w, 128), at least that.
int64_t scaled_width(int64_t width, double f);

/// Sum of the tensors' data, in bytes.
uint64_t data_bytes(const std::vector<io::TensorSpec>& specs);

}  // namespace mezzotint::synth
