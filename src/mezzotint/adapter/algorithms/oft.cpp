// OFT (LyCORIS diag-oft, kohya): every block of b rows of W is rotated, R_k' W_k with R the Cayley transform of
// oft_blocks [n, b, b]; the sum runs over R's first index. Strength s gives (I + s (R_k - I))' W_k, and rescale, where
// there is one, 1 + s (rescale - 1). alpha bounds the norm of Q over all blocks.
#include <fmt/format.h>

#include <cassert>
#include <memory>
#include <vector>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kOftSuffixes[] = {{".oft_blocks", "oft_blocks"}, {".rescale", "rescale"}};

class OftEffect final : public Effect {
 public:
  OftEffect(Shape shape, Tensor rotations, Tensor rescale)
      : Effect(std::move(shape)), rotations_(std::move(rotations)), rescale_(std::move(rescale)) {}
  int64_t granule() const override { return rotations_.shape.back(); }

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    const int64_t b = granule();
    assert(row0 % b == 0 && rows % b == 0);
    std::vector<float> block(static_cast<size_t>(b * cols()));
    for (int64_t r = 0; r < rows; r += b) {
      float* w = weight + r * cols();
      std::copy(w, w + b * cols(), block.begin());
      dense::multiply(dense::Transposed::yes, dense::Transposed::no, b, cols(), b, static_cast<float>(strength),
                      rotations_.row((row0 + r) / b), b, block.data(), cols(), static_cast<float>(1 - strength), w,
                      cols());
    }
    rescale_rows(rescale_, row0, rows, cols(), strength, weight);
  }

 private:
  Tensor rotations_, rescale_;
};

struct OftRow {
  static bool claims(const Parts& parts) {
    const Part* blocks = parts.find("oft_blocks");
    return blocks && blocks->shape.size() == 3;
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const Shape& blocks = parts.shape("oft_blocks");
    if (blocks[1] != blocks[2] || blocks[1] < 1) return "its blocks are not square";
    if (blocks[0] * blocks[1] != matrix_rows(weight)) {
      return fmt::format("{} blocks of {} do not make the weight's {} rows", blocks[0], blocks[1], matrix_rows(weight));
    }
    return rescale_misfit(parts, weight);
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    return std::make_unique<OftEffect>(weight, cayley(factors.at("oft_blocks"), factors.bound(matrix_rows(weight))),
                                       factors.take("rescale"));
  }
};

}  // namespace

extern const Algorithm algorithm_oft = {
    .name = "oft",
    .summary = "R' W with rotations R of blocks of rows (OFT)",
    .suffixes = kOftSuffixes,
    .claims = OftRow::claims,
    .misfit = OftRow::misfit,
    .make = OftRow::make,
    .granule = [](const Parts& parts, const Shape&) { return parts.shape("oft_blocks").back(); },
    .alpha_is_bound = true,
};

}  // namespace mezzotint::adapter
