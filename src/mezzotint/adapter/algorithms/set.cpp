// Replacement: W becomes the stored tensor at every strength but 0.
#include <fmt/format.h>

#include <memory>

#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kSetSuffixes[] = {{".set_weight", "set_weight"}};

class SetEffect final : public Effect {
 public:
  SetEffect(Shape shape, Tensor value) : Effect(std::move(shape)), value_(std::move(value)) {}

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    if (strength == 0) return;
    const float* from = value_.values.data() + row0 * cols();
    std::copy(from, from + rows * cols(), weight);
  }

 private:
  Tensor value_;
};

struct SetRow {
  static bool claims(const Parts& parts) { return parts.has("set_weight"); }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const Shape& value = parts.shape("set_weight");
    if (matrix_rows(value) == matrix_rows(weight) && matrix_cols(value) == matrix_cols(weight)) return "";
    return fmt::format("the replacement has the shape {}, the weight {}", to_string(value), to_string(weight));
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    return std::make_unique<SetEffect>(weight, factors.take("set_weight"));
  }
};

}  // namespace

extern const Algorithm algorithm_set = {
    .name = "set",
    .summary = "another weight in the place of W, at any strength but 0",
    .suffixes = kSetSuffixes,
    .claims = SetRow::claims,
    .misfit = SetRow::misfit,
    .make = SetRow::make,
    .takes_magnitude = false,
};

}  // namespace mezzotint::adapter
