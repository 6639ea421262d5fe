// IA3: rows or input columns of W multiplied by 1 + s w. LyCORIS stores w and whether it is on the input; PEFT stores
// l = 1 + w as ia3_l, [out, 1] or [1, in].
#include <memory>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kIa3Suffixes[] = {{".weight", "weight"}, {".on_input", "on_input"}, {".ia3_l", "ia3_l"}};

class Ia3Effect final : public Effect {
 public:
  Ia3Effect(Shape shape, std::vector<float> factors, bool on_input)
      : Effect(std::move(shape)), factors_(std::move(factors)), on_input_(on_input) {}

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    const int64_t kernel = on_input_ ? kernel_size(shape()) : cols();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols(); ++c) {
        const auto at = static_cast<size_t>(on_input_ ? c / kernel : row0 + r);
        weight[r * cols() + c] *= static_cast<float>(1 + strength * static_cast<double>(factors_[at]));
      }
    }
  }

 private:
  std::vector<float> factors_;
  bool on_input_;
};

struct Ia3Row {
  static bool claims(const Parts& parts) {
    return (parts.has("weight") && parts.has("on_input")) || parts.has("ia3_l");
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    if (weight.size() < 2) return "the weight is no matrix";
    const auto rows = static_cast<uint64_t>(weight[0]), inputs = static_cast<uint64_t>(weight[1]);
    if (const Part* l = parts.find("ia3_l")) {
      const bool on_input = is_on_input(l->shape);
      return element_count(l->shape) == (on_input ? inputs : rows) ? "" : "ia3_l does not fit the weight";
    }
    const std::optional<uint64_t> size = element_count(parts.shape("weight"));
    return size == rows || size == inputs ? "" : "its factors fit neither rows nor inputs of the weight";
  }

  /// [1, in, ...] or [out, 1, ...].
  static bool is_on_input(const Shape& shape) { return shape.size() >= 2 && shape[0] == 1 && shape[1] != 1; }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    if (factors.find("ia3_l")) {
      Tensor l = factors.take("ia3_l");
      for (float& x : l.values) x -= 1;
      return std::make_unique<Ia3Effect>(weight, std::move(l.values), is_on_input(l.shape));
    }
    const bool on_input = factors.at("on_input").values.at(0) != 0;
    std::vector<float> values = factors.take("weight").values;
    if (values.size() != static_cast<size_t>(weight[on_input ? 1 : 0]))
      throw factors.error("its factors do not fit the side that on_input names");
    return std::make_unique<Ia3Effect>(weight, std::move(values), on_input);
  }
};

}  // namespace

extern const Algorithm algorithm_ia3 = {
    .name = "ia3",
    .summary = "rows or input columns of W multiplied by 1 + w (IA3)",
    .suffixes = kIa3Suffixes,
    .claims = Ia3Row::claims,
    .misfit = Ia3Row::misfit,
    .make = Ia3Row::make,
    .takes_magnitude = false,
};

}  // namespace mezzotint::adapter
