// BOFT: butterfly rotations, oft_blocks [m, n, b, b]. Stage i takes rows that lie 2^i b/2 apart together: with the rows
// as (c, 2, k), k = 2^i b/2, in the order (c, k, 2), every b of them are multiplied by their R (over its second index,
// unlike OFT). Strength s makes every stage (1 - s) I + s R and the rescale behind them 1 + s (rescale - 1).
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <memory>
#include <vector>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kBoftSuffixes[] = {{".oft_blocks", "oft_blocks"}, {".rescale", "rescale"}};

class BoftEffect final : public Effect {
 public:
  BoftEffect(Shape shape, Tensor rotations, Tensor rescale)
      : Effect(std::move(shape)), rotations_(std::move(rotations)), rescale_(std::move(rescale)) {}
  int64_t granule() const override { return rows(); }

  void apply(int64_t row0, int64_t count, float* weight, double strength) const override {
    assert(row0 == 0 && count == rows());
    const int64_t stages = rotations_.shape[0], b = rotations_.shape.back();
    std::vector<float> before(static_cast<size_t>(b * cols())), after(before.size());
    const float* rotation = rotations_.values.data();
    for (int64_t stage = 0; stage < stages; ++stage) {
      const int64_t half = (int64_t{1} << stage) * b / 2;
      for (int64_t first = 0; first < rows(); first += b, rotation += b * b)
        rotate(rotation, first, half, strength, weight, before, after);
    }
    rescale_rows(rescale_, row0, count, cols(), strength, weight);
  }

 private:
  /// Row of the weight that stands at `place` in the order (c, k, 2).
  static int64_t source(int64_t place, int64_t half) {
    const int64_t group = place / (2 * half), inside = place % (2 * half);
    return group * 2 * half + inside % 2 * half + inside / 2;
  }

  void rotate(const float* rotation, int64_t first, int64_t half, double strength, float* weight,
              std::vector<float>& before, std::vector<float>& after) const {
    const int64_t b = rotations_.shape.back();
    for (int64_t i = 0; i < b; ++i)
      std::copy_n(weight + source(first + i, half) * cols(), cols(), before.begin() + i * cols());
    after = before;
    dense::multiply(dense::Transposed::no, dense::Transposed::no, b, cols(), b, static_cast<float>(strength), rotation,
                    b, before.data(), cols(), static_cast<float>(1 - strength), after.data(), cols());
    for (int64_t i = 0; i < b; ++i)
      std::copy_n(after.begin() + i * cols(), cols(), weight + source(first + i, half) * cols());
  }

  Tensor rotations_, rescale_;
};

struct BoftRow {
  static bool claims(const Parts& parts) {
    const Part* blocks = parts.find("oft_blocks");
    return blocks && blocks->shape.size() == 4;
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const Shape& blocks = parts.shape("oft_blocks");
    const int64_t b = blocks[2], rows = matrix_rows(weight);
    if (b != blocks[3] || b < 2 || b % 2 != 0) return "its blocks are not square or of odd size";
    if (blocks[1] * b != rows) {
      return fmt::format("{} blocks of {} do not make the weight's {} rows", blocks[1], b, rows);
    }
    for (int64_t stage = 0, width = b; stage < blocks[0]; ++stage, width *= 2) {
      if (rows % width != 0) return fmt::format("{} stages do not divide {} rows", blocks[0], rows);
    }
    return rescale_misfit(parts, weight);
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    return std::make_unique<BoftEffect>(weight, cayley(factors.at("oft_blocks"), factors.bound(matrix_rows(weight))),
                                        factors.take("rescale"));
  }
};

}  // namespace

extern const Algorithm algorithm_boft = {
    .name = "boft",
    .summary = "R_m ... R_1 W with butterfly rotations of rows (BOFT)",
    .suffixes = kBoftSuffixes,
    .claims = BoftRow::claims,
    .misfit = BoftRow::misfit,
    .make = BoftRow::make,
    .granule = [](const Parts&, const Shape& weight) { return matrix_rows(weight); },
    .alpha_is_bound = true,
};

}  // namespace mezzotint::adapter
