// LoHa: W + scale * (w1_a w1_b) o (w2_a w2_b), o elementwise. With Tucker cores t1, t2 (any convolution) both w_a are
// stored [rank, out] instead of [out, rank].
#include <fmt/format.h>

#include <memory>
#include <vector>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kLohaSuffixes[] = {
    {".hada_w1_a", "hada_w1_a"}, {".hada_w1_b", "hada_w1_b"}, {".hada_w2_a", "hada_w2_a"},
    {".hada_w2_b", "hada_w2_b"}, {".hada_t1", "hada_t1"},     {".hada_t2", "hada_t2"},
};

/// One of the two products that are multiplied, a [out, rank] and b [rank, cols].
struct LohaFactor {
  Tensor a, b;
};

class LohaEffect final : public Effect {
 public:
  LohaEffect(Shape shape, LohaFactor first, LohaFactor second, double scale)
      : Effect(std::move(shape)), first_(std::move(first)), second_(std::move(second)), scale_(scale) {}
  bool additive() const override { return true; }

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    constexpr int64_t kRows = 64;
    std::vector<float> first(static_cast<size_t>(kRows * cols())), second(first.size());
    const auto factor = static_cast<float>(strength * scale_);
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t count = std::min(kRows, rows - r);
      multiply_rows(first_, row0 + r, count, first.data());
      multiply_rows(second_, row0 + r, count, second.data());
      float* w = weight + r * cols();
      for (int64_t i = 0; i < count * cols(); ++i) w[i] += factor * (first[i] * second[i]);
    }
  }

 private:
  void multiply_rows(const LohaFactor& factor, int64_t row0, int64_t rows, float* out) const {
    const int64_t rank = factor.b.rows();
    dense::multiply(dense::Transposed::no, dense::Transposed::no, rows, cols(), rank, 1.0f, factor.a.row(row0), rank,
                    factor.b.values.data(), cols(), 0.0f, out, cols());
  }
  LohaFactor first_, second_;
  double scale_;
};

struct LohaRow {
  static bool claims(const Parts& parts) {
    return parts.has("hada_w1_a") && parts.has("hada_w1_b") && parts.has("hada_w2_a") && parts.has("hada_w2_b");
  }

  static std::string factor_misfit(const Shape& a, const Shape& b, const Part* core, const Shape& weight) {
    if (a.size() < 2 || b.size() < 2) return "a factor is no matrix";
    int64_t inputs = matrix_cols(b);
    if (core) {
      if (core->shape.size() < 2 || core->shape[0] != a[0] || core->shape[1] != b[0]) return "a core does not fit";
      inputs *= kernel_size(core->shape);
    } else if (matrix_cols(a) != b[0]) {
      return fmt::format("factors have ranks {} and {}", matrix_cols(a), b[0]);
    }
    const int64_t outputs = core ? matrix_cols(a) : a[0];
    return size_misfit(outputs, inputs, weight);
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    if (parts.has("hada_t1") != parts.has("hada_t2")) return "one of hada_t1 and hada_t2 is missing";
    const std::string first =
        factor_misfit(parts.shape("hada_w1_a"), parts.shape("hada_w1_b"), parts.find("hada_t1"), weight);
    return first.empty()
               ? factor_misfit(parts.shape("hada_w2_a"), parts.shape("hada_w2_b"), parts.find("hada_t2"), weight)
               : first;
  }

  static LohaFactor factor(Tensor a, Tensor b, const Tensor* core) {
    if (core) {
      a = transpose(a);
      b = fold_core(*core, b);
    }
    return {{{a.rows(), a.cols()}, std::move(a.values)}, {{b.rows(), b.cols()}, std::move(b.values)}};
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    const double scale = factors.scale(factors.at("hada_w1_b").rows());
    LohaFactor first = factor(factors.take("hada_w1_a"), factors.take("hada_w1_b"), factors.find("hada_t1"));
    LohaFactor second = factor(factors.take("hada_w2_a"), factors.take("hada_w2_b"), factors.find("hada_t2"));
    return std::make_unique<LohaEffect>(weight, std::move(first), std::move(second), scale);
  }
};

}  // namespace

extern const Algorithm algorithm_loha = {
    .name = "loha",
    .summary = "W + alpha / rank * (w1_a w1_b) o (w2_a w2_b) (LoHa)",
    .suffixes = kLohaSuffixes,
    .claims = LohaRow::claims,
    .misfit = LohaRow::misfit,
    .make = LohaRow::make,
};

}  // namespace mezzotint::adapter
