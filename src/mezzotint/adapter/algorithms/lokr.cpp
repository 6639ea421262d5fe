// LoKr: W + scale * kron(w1, w2); either side may be a product, and w2 one with a Tucker core (then w2_a is [rank,
// out]). kron pairs w1 with the channels of w2, whatever positions the kernel has:
//   delta[l * out_k + p, m * in_n + q, k] = w1[l, m] * w2[p, q, k]
// scale is alpha / rank of w2 where that is a product, else of w1, and where neither is 1: Factors::scale_of_whole().
#include <fmt/format.h>

#include <memory>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kLokrSuffixes[] = {
    {".lokr_w1", "lokr_w1"},     {".lokr_w1_a", "lokr_w1_a"}, {".lokr_w1_b", "lokr_w1_b"}, {".lokr_w2", "lokr_w2"},
    {".lokr_w2_a", "lokr_w2_a"}, {".lokr_w2_b", "lokr_w2_b"}, {".lokr_t2", "lokr_t2"},
};

class LokrEffect final : public Effect {
 public:
  LokrEffect(Shape shape, Tensor small, Tensor big, double scale)
      : Effect(std::move(shape)), small_(std::move(small)), big_(std::move(big)), scale_(scale) {}
  bool additive() const override { return true; }

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    const int64_t width = big_.cols();
    const double factor = strength * scale_;
    for (int64_t r = 0; r < rows; ++r) {
      const float* left = small_.row((row0 + r) / big_.rows());
      const float* right = big_.row((row0 + r) % big_.rows());
      float* w = weight + r * cols();
      for (int64_t m = 0; m < small_.cols(); ++m, w += width) {
        const auto x = static_cast<float>(factor * static_cast<double>(left[m]));
        for (int64_t q = 0; q < width; ++q) w[q] += x * right[q];
      }
    }
  }

 private:
  Tensor small_, big_;  // [out_l, in_m], [out_k, in_n * kernel]
  double scale_;
};

/// Rows and columns of one side of the product.
struct LokrSide {
  int64_t rows = 0, cols = 0;
  std::string problem;
};

struct LokrRow {
  static bool claims(const Parts& parts) {
    return (parts.has("lokr_w1") || (parts.has("lokr_w1_a") && parts.has("lokr_w1_b"))) &&
           (parts.has("lokr_w2") || (parts.has("lokr_w2_a") && parts.has("lokr_w2_b")));
  }

  static LokrSide side(const Parts& parts, const char* whole, const char* a, const char* b, const Part* core) {
    if (const Part* part = parts.find(whole)) return {matrix_rows(part->shape), matrix_cols(part->shape), ""};
    const Shape &left = parts.shape(a), &right = parts.shape(b);
    if (left.size() < 2 || right.size() < 2) return {0, 0, "a factor is no matrix"};
    if (core) {
      if (core->shape.size() < 2 || core->shape[0] != left[0] || core->shape[1] != right[0])
        return {0, 0, "the core does not fit"};
      return {matrix_cols(left), matrix_cols(right) * kernel_size(core->shape), ""};
    }
    if (matrix_cols(left) != right[0])
      return {0, 0, fmt::format("factors have ranks {} and {}", matrix_cols(left), right[0])};
    return {left[0], matrix_cols(right), ""};
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const LokrSide small = side(parts, "lokr_w1", "lokr_w1_a", "lokr_w1_b", nullptr);
    const LokrSide big = side(parts, "lokr_w2", "lokr_w2_a", "lokr_w2_b", parts.find("lokr_t2"));
    if (!small.problem.empty() || !big.problem.empty()) return small.problem.empty() ? big.problem : small.problem;
    if (auto misfit = size_misfit(small.rows * big.rows, small.cols * big.cols, weight); !misfit.empty()) return misfit;
    if (small.cols == 0 || big.cols % kernel_size(weight) != 0) return "w2 has another kernel than the weight";
    return "";
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    double scale = factors.scale_of_whole();
    const bool w1_whole = factors.find("lokr_w1") != nullptr, w2_whole = factors.find("lokr_w2") != nullptr;
    if (!w2_whole) {
      scale = factors.scale(factors.at("lokr_w2_b").rows());
    } else if (!w1_whole) {
      scale = factors.scale(factors.at("lokr_w1_b").rows());
    }
    Tensor small = w1_whole ? factors.take("lokr_w1") : multiply(factors.at("lokr_w1_a"), factors.at("lokr_w1_b"));
    Tensor big;
    if (w2_whole) {
      big = factors.take("lokr_w2");
    } else if (const Tensor* core = factors.find("lokr_t2")) {
      big = multiply(transpose(factors.at("lokr_w2_a")), fold_core(*core, factors.at("lokr_w2_b")));
    } else {
      big = multiply(factors.at("lokr_w2_a"), factors.at("lokr_w2_b"));
    }
    return std::make_unique<LokrEffect>(weight, std::move(small), std::move(big), scale);
  }
};

}  // namespace

extern const Algorithm algorithm_lokr = {
    .name = "lokr",
    .summary = "W + alpha / rank * kron(w1, w2) (LoKr)",
    .suffixes = kLokrSuffixes,
    .claims = LokrRow::claims,
    .misfit = LokrRow::misfit,
    .make = LokrRow::make,
    .told_of_rs_lora = [](const Parts& parts) { return parts.has("lokr_w1") && parts.has("lokr_w2"); },
};

}  // namespace mezzotint::adapter
