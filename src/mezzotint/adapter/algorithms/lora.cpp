// LoRA and LoCon: W + scale * up * down, with a Tucker core in between for convolutions; also files that enlarge W.
#include <fmt/format.h>

#include <memory>

#include "mezzotint/adapter/algebra.h"
#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/adapter/enlarge.h"
#include "mezzotint/kernel/dense.h"

namespace mezzotint::adapter {
namespace {

constexpr Suffix kLoraSuffixes[] = {
    {".lora_up.weight", "lora_up"},  // kohya, LyCORIS
    {".lora_down.weight", "lora_down"},
    {".lora_mid.weight", "lora_mid"},
    {"_lora.up.weight", "lora_up"},  // diffusers, old
    {"_lora.down.weight", "lora_down"},
    {".lora_B.weight", "lora_up"},  // PEFT; ".lora_B.NAME.weight" is read as this
    {".lora_A.weight", "lora_down"},
    {".lora.up.weight", "lora_up"},  // diffusers
    {".lora.down.weight", "lora_down"},
    {".lora_B", "lora_up"},  // Mochi
    {".lora_A", "lora_down"},
    {".lora_linear_layer.up.weight", "lora_up"},  // transformers
    {".lora_linear_layer.down.weight", "lora_down"},
    {".reshape_weight", "reshape_weight"},
};

class LoraEffect final : public Effect {
 public:
  LoraEffect(Shape shape, LowRank factors) : Effect(std::move(shape)), factors_(std::move(factors)) {}
  bool additive() const override { return true; }
  const LowRank* low_rank() const override { return &factors_; }

  void apply(int64_t row0, int64_t rows, float* weight, double strength) const override {
    const int64_t rank = factors_.rank();
    dense::multiply(dense::Transposed::no, dense::Transposed::no, rows, cols(), rank,
                    static_cast<float>(strength * factors_.scale), factors_.up.row(row0), rank,
                    factors_.down.values.data(), cols(), 1.0f, weight, cols());
  }

 private:
  LowRank factors_;
};

struct LoraRow {
  static bool claims(const Parts& parts) { return parts.has("lora_up") && parts.has("lora_down"); }

  static std::string misfit(const Parts& parts, const Shape& weight) {
    const Shape &up = parts.shape("lora_up"), &down = parts.shape("lora_down");
    if (up.empty() || down.empty() || matrix_rows(down) < 1) return "up or down is no matrix";
    const int64_t rank = matrix_rows(down);
    int64_t inputs = matrix_cols(down), mid_rank = rank;
    if (const Part* mid = parts.find("lora_mid")) {
      if (mid->shape.size() < 2 || mid->shape[1] != rank) return "the middle does not fit down";
      mid_rank = mid->shape[0];
      inputs *= kernel_size(mid->shape);
    }
    if (matrix_cols(up) != mid_rank) return fmt::format("up has rank {}, down {}", matrix_cols(up), rank);
    const Part* reshape = parts.find("reshape_weight");
    if (auto misfit = size_misfit(matrix_rows(up), inputs, weight); !reshape && !misfit.empty()) return misfit;
    if (reshape && parts.has("lora_mid")) return "it has a core and enlarges the weight, which nobody writes";
    if (reshape && (reshape->shape.size() != 1 || reshape->shape[0] != static_cast<int64_t>(weight.size())))
      return "reshape_weight has other dimensions than the weight";
    return "";
  }

  static std::unique_ptr<const Effect> make(Factors factors, const Shape& weight) {
    Tensor down = factors.take("lora_down");
    const double scale = factors.scale(down.rows());
    if (const Tensor* mid = factors.find("lora_mid")) down = fold_core(*mid, down);
    down.shape = {down.rows(), down.cols()};
    Tensor up = factors.take("lora_up");
    up.shape = {up.rows(), up.cols()};
    Shape shape = weight;
    if (const Tensor* sizes = factors.find("reshape_weight"))
      shape = enlarged_shape(*sizes, weight, up.rows(), down.cols(), factors.target);
    return std::make_unique<LoraEffect>(std::move(shape), LowRank{std::move(up), std::move(down), scale});
  }
};

}  // namespace

extern const Algorithm algorithm_lora = {
    .name = "lora",
    .summary = "W + alpha / rank * up * down (LoRA, LoCon)",
    .suffixes = kLoraSuffixes,
    .claims = LoraRow::claims,
    .misfit = LoraRow::misfit,
    .make = LoraRow::make,
    .rank =
        [](const Parts& parts) {
          const Part* mid = parts.find("lora_mid");
          return matrix_rows(mid ? mid->shape : parts.shape("lora_down"));
        },
};

}  // namespace mezzotint::adapter
