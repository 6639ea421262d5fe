#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/dtype.h"

/// Model families whose layers other programs call by other names: one file families/NAME.cpp each, which defines
/// `extern const Family family_NAME`. The build makes the table (cmake/RowTable.cmake). Names that only differ by a
/// prefix or by underscores for dots need no family (key_map.h).
namespace mezzotint::adapter {

/// What a name means: a layer of the model (without ".weight"), or some of its rows.
struct Target {
  std::string layer;
  int64_t row0 = 0;
  int64_t rows = 0;  ///< 0 = all
  /// The adapter's first half of the rows is the model's second and the other way round: adaLN layers, whose shift and
  /// scale diffusers stores in the other order.
  bool swap_halves = false;

  bool operator==(const Target&) const = default;
};

/// The tensors of one component, its prefix taken off, with the shapes that its layers compute with.
class Names {
 public:
  void add(std::string name, Shape shape) { shapes_.insert_or_assign(std::move(name), std::move(shape)); }
  bool has(std::string_view name) const { return shapes_.contains(name); }
  /// Whether there is a tensor of this layer: `layer` itself, or `layer`.something or `layer`_weight.
  bool has_layer(std::string_view layer) const;
  /// Dimension `axis` of `layer`.weight, or 0.
  int64_t dim(std::string_view layer, size_t axis) const;
  /// n where something is called `stem`0.*, ... `stem`(n-1).*.
  int64_t blocks(std::string_view stem) const;
  bool any(std::string_view stem) const;
  const std::map<std::string, Shape, std::less<>>& all() const { return shapes_; }

 private:
  std::map<std::string, Shape, std::less<>> shapes_;
};

/// Other names of a component's layers.
class Aliases {
 public:
  explicit Aliases(const Names& names) : names_(names) {}
  /// Nothing is added for layers that the model does not have. `rows` = 0 means all.
  void add(std::string name, std::string layer, int64_t row0 = 0, int64_t rows = 0);
  /// `first`, `second`, ...: slices of `rows` rows each of one layer, in this order.
  void add_slices(std::string_view prefix, std::initializer_list<std::string_view> names, const std::string& layer,
                  int64_t rows);
  void add_swapped(std::string name, std::string layer);
  /// {theirs, ours} behind two prefixes.
  using Pairs = std::initializer_list<std::pair<std::string_view, std::string_view>>;
  void add_pairs(const std::string& theirs, const std::string& ours, Pairs pairs);
  /// Every layer below `ours` (with its dot) under the same name below `theirs`.
  void add_tree(const std::string& theirs, const std::string& ours);
  const std::vector<std::pair<std::string, Target>>& all() const { return all_; }

 private:
  const Names& names_;
  std::vector<std::pair<std::string, Target>> all_;
};

struct Family {
  std::string_view name;
  /// Whether a component with these names is one of it.
  bool (*fits)(const Names& names);
  void (*add)(const Names& names, Aliases& aliases);
};

std::span<const Family* const> all_families();

}  // namespace mezzotint::adapter
