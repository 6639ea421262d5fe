#include "mezzotint/convert/optimizers/subspace_rank.h"

#include <fmt/format.h>

#include <algorithm>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {

int64_t SubspaceRank::of(int64_t rows, int64_t cols) const {
  const int64_t side = std::min(rows, cols);
  const auto share = static_cast<int64_t>(top_p * static_cast<double>(side));
  return std::min(side, std::clamp(share, min_k, max_k));
}

void SubspaceRank::check() const {
  if (top_p > 0 && top_p <= 1 && min_k >= 1 && min_k <= max_k) return;
  throw Error({.name = "bad-option",
               .problem = "the rank of learned rounding cannot be chosen so",
               .expected = "0 < top-p <= 1 and 1 <= min-k <= max-k",
               .found = fmt::format("--top-p {} --min-k {} --max-k {}", top_p, min_k, max_k)});
}

}  // namespace mezzotint::convert
