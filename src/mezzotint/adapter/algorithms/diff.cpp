// Whole differences: W + s * diff. LyCORIS full and norm files, biases of many files, what ComfyUI trains for
// one-dimensional weights.
#include <fmt/format.h>

#include <memory>

#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kDiffSuffixes[] = {{".diff", "diff"}, {".w_norm", "diff"}};

class DiffEffect final : public Effect {
 public:
  DiffEffect(Shape shape, Tensor diff, double factor)
      : Effect(std::move(shape)), diff_(std::move(diff)), factor_(factor) {}
  bool additive() const override { return true; }

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    const float* diff = diff_.values.data() + row0 * cols();
    const auto factor = static_cast<float>(strength * factor_);
    for (int64_t i = 0; i < rows * cols(); ++i) weight[i] += factor * diff[i];
  }

 private:
  Tensor diff_;
  double factor_;
};

struct DiffRow {
  static bool claims(const Parts& parts) { return parts.has("diff"); }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const Shape& diff = parts.shape("diff");
    if (matrix_rows(diff) == matrix_rows(weight) && matrix_cols(diff) == matrix_cols(weight)) return "";
    return fmt::format("the difference has the shape {}, the weight {}", to_string(diff), to_string(weight));
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    const double factor = factors.factor;
    return std::make_unique<DiffEffect>(weight, factors.take("diff"), factor);
  }
};

}  // namespace

extern const Algorithm algorithm_diff = {
    .name = "diff",
    .summary = "W + diff (full, norm and bias differences)",
    .suffixes = kDiffSuffixes,
    .claims = DiffRow::claims,
    .misfit = DiffRow::misfit,
    .make = DiffRow::make,
    .takes_magnitude = false,
};

}  // namespace mezzotint::adapter
