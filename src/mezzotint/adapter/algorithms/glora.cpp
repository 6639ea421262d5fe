// GLoRA: W + scale * (W A + B). A acts on the input channels, so it depends on W as the patches in front left it.
//   new layout (LyCORIS)   A = a1 a2, B = b1 b2    a1 [I, r]  a2 [r, I]  b1 [O, r]  b2 [r, I, *kernel]; with bm
//                                                  [r, r, *kernel] a Tucker core between b1 and b2 [r, I, 1...]
//   old layout             A = a2 a1, B = b2 b1    a1 [r, K]  a2 [K, r]  b1 [r, K]  b2 [O, r], K = I * kernel
// Where shapes fit both (all square), it is the new one.
#include <fmt/format.h>

#include <memory>
#include <vector>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kGloraSuffixes[] = {
    {".a1.weight", "a1"}, {".a2.weight", "a2"}, {".b1.weight", "b1"}, {".b2.weight", "b2"}, {".bm.weight", "bm"}};

/// W A + B with A = left right [inputs, inputs] and B = up down.
struct GloraFactors {
  Tensor left, right, up, down;
};

class GloraEffect final : public Effect {
 public:
  GloraEffect(Shape shape, GloraFactors factors, double scale)
      : Effect(std::move(shape)), f_(std::move(factors)), scale_(scale) {}

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    using enum dense::Transposed;
    const int64_t inputs = f_.left.rows(), rank = f_.left.cols(), kernel = cols() / inputs, up_rank = f_.up.cols();
    const auto factor = static_cast<float>(strength * scale_);
    std::vector<float> middle(static_cast<size_t>(kernel == 1 ? rows * rank : rank * kernel));
    if (kernel == 1) {
      dense::multiply(no, no, rows, rank, inputs, 1.0f, weight, inputs, f_.left.values.data(), rank, 0.0f,
                      middle.data(), rank);
      dense::multiply(no, no, rows, inputs, rank, factor, middle.data(), rank, f_.right.values.data(), inputs, 1.0f,
                      weight, inputs);
    }
    for (int64_t r = 0; kernel != 1 && r < rows; ++r) {  // a row is [inputs, kernel]
      float* w = weight + r * cols();
      dense::multiply(yes, no, rank, kernel, inputs, 1.0f, f_.left.values.data(), rank, w, kernel, 0.0f, middle.data(),
                      kernel);
      dense::multiply(yes, no, inputs, kernel, rank, factor, f_.right.values.data(), inputs, middle.data(), kernel,
                      1.0f, w, kernel);
    }
    dense::multiply(no, no, rows, cols(), up_rank, factor, f_.up.row(row0), up_rank, f_.down.values.data(), cols(),
                    1.0f, weight, cols());
  }

 private:
  GloraFactors f_;
  double scale_;
};

struct GloraRow {
  static bool claims(const Parts& parts) {
    return parts.has("a1") && parts.has("a2") && parts.has("b1") && parts.has("b2");
  }

  static bool is_new(const Parts& parts, const Shape& weight) {
    const Shape &a1 = parts.shape("a1"), &a2 = parts.shape("a2"), &b1 = parts.shape("b1"), &b2 = parts.shape("b2");
    const Part* bm = parts.find("bm");
    const int64_t rank = matrix_rows(a2), kernel = bm ? kernel_size(bm->shape) : 1;
    const bool core = !bm || (bm->shape.size() >= 2 && bm->shape[0] == matrix_cols(b1) && bm->shape[1] == b2[0]);
    return weight.size() >= 2 && core && matrix_cols(a1) == rank && a1[0] == weight[1] &&
           matrix_cols(a2) == weight[1] && b1[0] == weight[0] && (bm || matrix_cols(b1) == b2[0]) &&
           matrix_cols(b2) * kernel == matrix_cols(weight);
  }

  static bool is_old(const Parts& parts, const Shape& weight) {
    const Shape &a1 = parts.shape("a1"), &a2 = parts.shape("a2"), &b1 = parts.shape("b1"), &b2 = parts.shape("b2");
    const int64_t cols = matrix_cols(weight);
    return !parts.has("bm") && matrix_cols(a1) == cols && a2[0] == cols && matrix_cols(a2) == a1[0] &&
           matrix_cols(b1) == cols && b2[0] == matrix_rows(weight) && matrix_cols(b2) == b1[0];
  }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    for (const char* role : {"a1", "a2", "b1", "b2"})
      if (parts.shape(role).size() < 2) return fmt::format("{} is no matrix", role);
    if (is_new(parts, weight) || is_old(parts, weight)) return "";
    return fmt::format("a1, a2, b1 and b2 fit a weight of {} in neither layout", to_string(weight));
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    Parts shapes;
    for (const auto& [role, tensor] : factors.tensors) shapes.parts.push_back({role, 0, tensor.shape});
    const bool modern = is_new(shapes, weight);
    const double scale = factors.scale(matrix_rows(shapes.shape(modern ? "a2" : "a1")));
    GloraFactors f;
    f.left = flat(factors.take(modern ? "a1" : "a2"));
    f.right = flat(factors.take(modern ? "a2" : "a1"));
    f.up = flat(factors.take(modern ? "b1" : "b2"));
    f.down = flat(factors.take(modern ? "b2" : "b1"));
    if (const Tensor* core = factors.find("bm")) f.down = fold_core(*core, f.down);
    return std::make_unique<GloraEffect>(weight, std::move(f), scale);
  }

  static Tensor flat(Tensor tensor) {
    tensor.shape = {tensor.rows(), tensor.cols()};
    return tensor;
  }
};

}  // namespace

extern const Algorithm algorithm_glora = {
    .name = "glora",
    .summary = "W + alpha / rank * (W A + B) (GLoRA)",
    .suffixes = kGloraSuffixes,
    .claims = GloraRow::claims,
    .misfit = GloraRow::misfit,
    .make = GloraRow::make,
    .told_of_rs_lora = [](const Parts&) { return true; },  // alpha is stored as it is
};

}  // namespace mezzotint::adapter
