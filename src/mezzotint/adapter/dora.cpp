#include "mezzotint/adapter/dora.h"

#include <cassert>
#include <cmath>
#include <numeric>
#include <vector>

namespace mezzotint::adapter {
namespace {

class DoraEffect final : public Effect {
 public:
  DoraEffect(std::unique_ptr<const Effect> effect, Tensor magnitude, DoraAxis axis)
      : Effect(effect->shape()), effect_(std::move(effect)), magnitude_(std::move(magnitude)), axis_(axis) {}
  int64_t granule() const override { return axis_ == DoraAxis::columns ? rows() : effect_->granule(); }

  void apply(int64_t row0, int64_t count, float* weight, double strength) const override {
    std::vector<float> v(weight, weight + count * cols());
    effect_->apply(row0, count, v.data(), 1);
    if (axis_ == DoraAxis::rows) {
      for (int64_t r = 0; r < count; ++r) {
        double squares = 0;
        for (int64_t c = 0; c < cols(); ++c) squares += square(v[static_cast<size_t>(r * cols() + c)]);
        const double ratio = lengthen(row0 + r, squares);
        for (int64_t c = 0; c < cols(); ++c) blend(weight, v, r * cols() + c, ratio, strength);
      }
      return;
    }
    assert(row0 == 0 && count == rows());
    const int64_t kernel = kernel_size(shape());
    std::vector<double> squares(static_cast<size_t>(cols() / kernel));
    for (int64_t i = 0; i < count * cols(); ++i) squares[static_cast<size_t>(i % cols() / kernel)] += square(v[i]);
    for (size_t c = 0; c < squares.size(); ++c) squares[c] = lengthen(static_cast<int64_t>(c), squares[c]);
    for (int64_t i = 0; i < count * cols(); ++i)
      blend(weight, v, i, squares[static_cast<size_t>(i % cols() / kernel)], strength);
  }

 private:
  static double square(float x) { return static_cast<double>(x) * static_cast<double>(x); }
  double lengthen(int64_t at, double squares) const {
    return squares == 0 ? 0 : static_cast<double>(magnitude_.values[static_cast<size_t>(at)]) / std::sqrt(squares);
  }
  static void blend(float* weight, const std::vector<float>& v, int64_t i, double ratio, double strength) {
    const auto w = static_cast<double>(weight[i]);
    weight[i] = static_cast<float>(w + strength * (static_cast<double>(v[static_cast<size_t>(i)]) * ratio - w));
  }

  std::unique_ptr<const Effect> effect_;
  Tensor magnitude_;
  DoraAxis axis_;
};

}  // namespace

DoraFit dora_axis(const Shape& magnitude, bool peft, const Shape& weight) {
  const auto size = static_cast<int64_t>(element_count(magnitude).value_or(0));
  const bool one_row = magnitude.size() >= 2 && magnitude[0] == 1 && magnitude[1] == size;
  if (!peft && one_row && weight.size() >= 2 && size == weight[1] && (size != 1 || weight[0] == 1))
    return {DoraAxis::columns, ""};
  if (size == matrix_rows(weight) && (peft || magnitude.size() == 1 || magnitude[0] == size))
    return {DoraAxis::rows, ""};
  return {DoraAxis::rows, "its magnitudes " + to_string(magnitude) + " fit neither rows nor inputs of the weight"};
}

std::unique_ptr<const Effect> with_magnitude(std::unique_ptr<const Effect> effect, Tensor magnitude, DoraAxis axis) {
  return std::make_unique<DoraEffect>(std::move(effect), std::move(magnitude), axis);
}

}  // namespace mezzotint::adapter
