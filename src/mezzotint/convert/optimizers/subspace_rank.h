#pragma once
#include <cstdint>

namespace mezzotint::convert {

/// How many leading singular vectors "learned rounding" looks at, min(max_k, max(min_k, floor(top_p * min(rows,
/// cols)))) but not more than there are: names and defaults of the programs that brought it (converter.md 3.2).
struct SubspaceRank {
  double top_p = 0.2;
  int64_t min_k = 256, max_k = 1280;
  bool operator==(const SubspaceRank&) const = default;

  int64_t of(int64_t rows, int64_t cols) const;
  /// Throws Error "bad-option" unless 0 < top_p <= 1 and 1 <= min_k <= max_k.
  void check() const;
};

}  // namespace mezzotint::convert
