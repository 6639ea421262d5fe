#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/adapter/effect.h"
#include "mezzotint/adapter/tensor.h"
#include "mezzotint/base/error.h"

/// What an adapter algorithm is: one constant row of facts and functions, one file algorithms/NAME.cpp that defines
/// `extern const Algorithm algorithm_NAME`. The build makes the table (cmake/RowTable.cmake).
namespace mezzotint::adapter {

/// How a file spells a tensor: a key is the target's name followed by `text`. The longest one that fits counts.
struct Suffix {
  std::string_view text;  ///< ".lora_up.weight"
  std::string_view role;  ///< "lora_up": the same for all dialects
};

/// A tensor of a patch, by its role.
struct Part {
  std::string_view role;
  size_t tensor = 0;  ///< of the file
  Shape shape;
};

/// The tensors under one target, as the header has them.
struct Parts {
  std::vector<Part> parts;

  const Part* find(std::string_view role) const;
  bool has(std::string_view role) const { return find(role) != nullptr; }
  /// Shape of a part that is there.
  const Shape& shape(std::string_view role) const;
};

/// The same, read.
struct Factors {
  std::vector<std::pair<std::string_view, Tensor>> tensors;
  std::optional<double> alpha;  ///< what it means is up to the algorithm
  bool rank_stabilized = false;
  std::string target;               ///< for messages
  double factor = 1;                ///< of patches that are parts of another: lora_B.bias is scaled as its LoRA
  bool constraint_per_row = false;  ///< OFT and BOFT: alpha counts per output row (ReadOptions)

  const Tensor* find(std::string_view role) const;
  const Tensor& at(std::string_view role) const;
  /// Moves a tensor out; empty where there is none.
  Tensor take(std::string_view role);
  /// What alpha bounds the norm of an orthogonal adapter of `rows` outputs by; 0 = not at all.
  double bound(int64_t rows) const;
  Error error(std::string problem) const;
  /// alpha / rank, or alpha / sqrt(rank) where stabilized; 1 without alpha.
  double scale(int64_t rank) const;
  /// Of LoKr without a product that had a rank: 1. Where stabilized, LyCORIS trained with sqrt(rank), and stores
  /// rank * sqrt(rank) as alpha.
  double scale_of_whole() const;
};

struct Algorithm {
  std::string_view name;     ///< "lora"
  std::string_view summary;  ///< what it makes of W, one line
  std::span<const Suffix> suffixes;
  /// Whether these parts (others may be among them) are one of its patches.
  bool (*claims)(const Parts& parts);
  /// Why the parts do not fit a weight of this shape, one clause ("up has 4 rows, the weight 8"), or "".
  std::string (*misfit)(const Parts& parts, const Shape& weight);
  /// For parts that fit. Magnitudes of DoRA are seen to elsewhere (dora.h).
  std::unique_ptr<const Effect> (*make)(Factors factors, const Shape& weight);
  /// Effect::granule() and the rank of Effect::low_rank() of what make() gives, from shapes; null = 1 and none.
  int64_t (*granule)(const Parts& parts, const Shape& weight) = nullptr;
  int64_t (*rank)(const Parts& parts) = nullptr;
  bool alpha_is_bound = false;  ///< alpha bounds a norm and is no numerator of a scale
  bool takes_magnitude = true;  ///< a DoRA magnitude under the same target is of this patch
  /// LyCORIS with rs_lora stores alpha * sqrt(rank), so that alpha / rank is right. Whether that does not do for these
  /// parts, so that make() is told (Factors::rank_stabilized); null = it always does.
  bool (*told_of_rs_lora)(const Parts& parts) = nullptr;
};

/// Every algorithm compiled in, in alphabetical order of the files.
std::span<const Algorithm* const> all_algorithms();
/// By name, or null.
const Algorithm* find_algorithm(std::string_view name);

}  // namespace mezzotint::adapter
