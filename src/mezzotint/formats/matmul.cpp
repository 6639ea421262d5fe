#include "mezzotint/formats/matmul.h"

#include <algorithm>
#include <cassert>
#include <string>
#include <vector>

#include "mezzotint/base/error.h"
#include "mezzotint/base/round_up.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/formats/matmul_path.h"
#include "mezzotint/formats/scratch.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/gemm/choice.h"
#include "mezzotint/kernel/gemm/float_gemm.h"
#include "mezzotint/kernel/gemm/gemm_threads.h"
#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/gemm/quantize_rows.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats {
namespace {

using kernel::ElementCode;
using kernel::Epilogue;
using kernel::FloatGemm;
using kernel::FloatScaling;
using kernel::Int8Product;
using kernel::Operand;
using kernel::Output;
using kernel::Source;

/// Rows of the weight that are decoded at a time where the kernels cannot read the stored codes.
constexpr int64_t kDecodedRows = 256;

/// One product: its shape, which way it goes, and the sizes of everything that lives in scratch.
class Run {
 public:
  Run(const Matmul& product, int threads)
      : p_(product),
        layout_(*product.layout),
        threads_(kernel::gemm_threads(threads)),
        m_(product.x.rows),
        n_(layout_.rows),
        k_(layout_.cols) {
    if (layout_.format->matmul_form) form_ = layout_.format->matmul_form(layout_, *p_.parameters, p_.expert);
    decoded_ = form_.codes.data == nullptr && form_.grid == nullptr;
    assert(p_.x.cols == (p_.transposed ? n_ : k_));
    assert(!p_.transposed || (p_.bias == nullptr && p_.activation == kernel::Activation::none));
    const bool whole = p_.transposed || layout_.decodes_whole;
    step_ = !decoded_ && form_.grid == nullptr ? n_ : whole ? n_ : std::min(n_, kDecodedRows);
    if (p_.inputs == Inputs::runtime) input_ = form_.input;
    if (p_.transposed && input_ != InputCodes::int8 && input_ != InputCodes::int8_blocks) input_ = InputCodes::none;
    rotates_input_ = form_.rotation != 0 && !p_.transposed && !integer();
    rotates_output_ = form_.rotation != 0 && p_.transposed;
  }

  size_t bytes() const {
    size_t total = Scratch::kAlignment;
    if (rotates_input_) total += scratch_bytes<float>(m_ * k_);
    if (rotates_output_) total += scratch_bytes<float>(m_ * k_);
    if (decoded_ || form_.grid) total += scratch_bytes<float>(step_ * k_);
    if (form_.grid) total += scratch_bytes<int8_t>(step_ * k_);
    if (integer()) {
      total += scratch_bytes<int8_t>(m_ * p_.x.cols) + scratch_bytes<float>(m_ * blocks());
      return total +
             std::max(kernel::quantize_int8_scratch_bytes(m_, p_.x.cols, threads_),
                      kernel::int8_gemm_scratch_bytes(m_, step_, k_, threads_, form_.codes.code == ElementCode::int4));
    }
    total += quantized_input_bytes(input_, m_, p_.x.cols) + Scratch::kAlignment;
    // Sizes follow from shapes and codes alone; what x becomes has at most the bits of a float.
    Operand x = Operand::of({nullptr, p_.x.dtype, m_, p_.x.cols, p_.x.cols});
    size_t gemm = 0;
    for (const ElementCode code : {x.code, ElementCode::f32, quantized_code()}) {
      x.code = code;
      gemm = std::max(gemm, kernel::float_gemm_scratch(float_product(x, sized_weight(), {}, 0), threads_));
    }
    return total + gemm;
  }

  void compute(const Output& y, std::span<std::byte> buffer) {
    if (buffer.size() < bytes())
      throw Error({.name = "scratch-too-small",
                   .problem = "the scratch of a matrix product is too small",
                   .expected = std::to_string(bytes()) + " bytes",
                   .found = std::to_string(buffer.size()),
                   .advice = "Ask matmul_scratch_bytes."});
    if (m_ == 0) return;
    Scratch scratch(buffer);
    Output out = y;
    if (rotates_output_) out = {scratch.take<float>(m_ * k_), DType::f32, k_};
    Source x = p_.x;
    if (rotates_input_) x = rotated(x, scratch.take<float>(m_ * k_));
    float* values = decoded_ || form_.grid ? scratch.take<float>(step_ * k_) : nullptr;
    auto* codes = form_.grid ? scratch.take<int8_t>(step_ * k_) : nullptr;
    if (integer())
      by_integers(x, values, codes, out, scratch);
    else
      by_floats(x, values, codes, out, scratch);
    if (rotates_output_) rotate_back(out, y);
  }

  MatmulPath path() const {
    MatmulPath path;
    path.leaves_inputs = form_.input != InputCodes::none && input_ == InputCodes::none && !p_.transposed;
    std::vector<std::string> reasons;
    if (decoded_)
      reasons.push_back(std::string(layout_.format->name) + " with these options is decoded before it is multiplied");
    Operand w = sized_weight(), x = Operand::of(p_.x);
    if (input_ != InputCodes::none) x.code = quantized_code();
    if (input_ == InputCodes::none && rotates_input_) x.code = ElementCode::f32;
    kernel::Isa level = kernel::Isa::scalar;
    std::string in;
    if (integer()) {
      level = kernel::int8_gemm_level();
    } else {
      const kernel::FloatGemmChoice choice = kernel::float_gemm_choice(float_product(x, w, {}, 0));
      level = choice.level;
      in = choice.bf16 ? " in bf16" : " in float32";
      if (choice.obstacle == kernel::FloatGemmChoice::Obstacle::scales)
        reasons.push_back("its block scales do not fit the kernels for bf16");
      if (choice.obstacle == kernel::FloatGemmChoice::Obstacle::level)
        reasons.push_back(lacks(kernel::Isa::avx512bf16, "AVX-512 BF16"));
      if (choice.obstacle == kernel::FloatGemmChoice::Obstacle::operands && !decoded_)
        reasons.push_back(rotates_input_
                              ? "inputs are rotated in float32"
                              : std::string("inputs are ") + (x.code == ElementCode::f16 ? "float16" : "float32"));
    }
    if ((integer() || in == " in bf16") && level != kernel::Isa::amx) reasons.push_back(lacks(kernel::Isa::amx, "AMX"));
    path.kernel = std::string(decoded_ ? "decoded float32" : name_of(w.code)) + " x " + name_of(x.code) + in + ", " +
                  std::string(kernel::name(level));
    for (const std::string& reason : reasons) path.reason += (path.reason.empty() ? "" : "; ") + reason;
    return path;
  }

 private:
  static const char* name_of(ElementCode code) {
    constexpr const char* kNames[] = {"float32", "bf16", "float16", "e4m3", "e5m2", "int8", "int4", "e2m1"};
    return kNames[static_cast<size_t>(code)];
  }
  static std::string lacks(kernel::Isa level, const std::string& name) {
    return kernel::machine_has(level) ? "MEZZOTINT_ISA holds " + name + " back" : "this CPU has no " + name;
  }

  /// Whether integers are multiplied with integers.
  bool integer() const { return is_integer(input_); }
  int64_t blocks() const { return input_ == InputCodes::int8_blocks ? divide_up(p_.x.cols, kernel::kInt8Block) : 1; }
  ElementCode quantized_code() const {
    switch (input_) {
      case InputCodes::fp8_e5m2:
        return ElementCode::e5m2;
      case InputCodes::int8:
      case InputCodes::int8_blocks:
        return ElementCode::int8;
      case InputCodes::int4:
        return ElementCode::int4;
      case InputCodes::fp4:
        return ElementCode::e2m1;
      case InputCodes::none:
        return Operand::of({nullptr, p_.x.dtype, 0, 0, 0}).code;
      default:
        return ElementCode::e4m3;
    }
  }

  Epilogue epilogue(int64_t n0) const {
    Epilogue e;
    e.scale = decoded_ || form_.scale == nullptr ? 1.0f : *form_.scale;
    e.activation = p_.activation;
    if (p_.bias) e.bias = p_.bias + n0;
    if (!p_.transposed && form_.row_scale) e.col_scale = form_.row_scale + n0;
    return e;
  }

  Operand sized_weight() const {
    if (decoded_) return {nullptr, ElementCode::f32, step_, k_, 4 * k_, {}};
    if (form_.grid) return {nullptr, ElementCode::int8, step_, k_, k_, {}};
    return form_.codes;
  }

  /// Rows [n0, n0 + rows) of the weight as an operand.
  Operand weight(int64_t n0, int64_t rows, float* values, int8_t* codes) const {
    if (decoded_) {
      const int64_t row0 = p_.expert * n_ + n0;
      const std::byte* stored = p_.parameters->tensors[0].data() + layout_.stored_row(row0) * layout_.row_bytes;
      decode_rows(layout_, *p_.parameters, row0, rows, stored, values);
      return {values, ElementCode::f32, rows, k_, 4 * k_, {}};
    }
    if (form_.grid) {
      kernel::parallel_row_runs(rows, threads_, [&](int64_t r0, int64_t count) {
        form_.grid(layout_, *p_.parameters, p_.expert * n_ + n0 + r0, count, values + r0 * k_);
        const float one = 1.0f;  // they are integers: nothing is rounded
        kernel::encode_int8({values + r0 * k_, DType::f32, count, k_, k_}, kernel::Scales::scalar(&one), -127,
                            codes + r0 * k_, k_);
      });
      return {codes, ElementCode::int8, rows, k_, k_, {}};
    }
    return form_.codes;
  }

  FloatGemm float_product(const Operand& x, const Operand& w, const QuantizedInput& q, int64_t n0) const {
    FloatGemm product{.x = x, .w = w, .transposed = p_.transposed, .epilogue = epilogue(n0)};
    if (p_.transposed) product.reduction_scale = form_.row_scale;
    product.epilogue.row_scale = q.row_scale;
    return product;
  }

  static Output columns_from(const Output& y, int64_t n0) {
    return {static_cast<std::byte*>(y.data) + n0 * (facts(y.dtype).bits / 8), y.dtype, y.stride};
  }

  void by_floats(const Source& x, float* values, int8_t* codes, const Output& y, Scratch scratch) const {
    QuantizedInput q;
    q.codes = Operand::of(x);
    if (input_ != InputCodes::none) {
      const size_t size = quantized_input_bytes(input_, m_, x.cols);
      std::byte* part = scratch.take<std::byte>(static_cast<int64_t>(size));
      q = quantize_input(x, input_, p_.scaling, {part, size}, threads_);
    }
    for (int64_t n0 = 0; n0 < n_; n0 += step_) {
      const Operand w = weight(n0, std::min(step_, n_ - n0), values, codes);
      const FloatGemm product = float_product(q.codes, w, q, n0);
      kernel::float_gemm(product, p_.transposed ? y : columns_from(y, n0), scratch.rest().data(), threads_);
    }
  }

  void by_integers(const Source& x, float* values, int8_t* codes, const Output& y, Scratch scratch) const {
    const bool by_block = input_ == InputCodes::int8_blocks, per_tensor = p_.scaling.of == FloatScaling::Of::tensor;
    const int64_t cols = x.cols;
    auto* x_codes = scratch.take<int8_t>(m_ * cols);
    auto* x_scales = scratch.take<float>(m_ * blocks());
    kernel::Int8Quantization how{.scaling = by_block     ? kernel::Int8Scaling::block
                                            : per_tensor ? kernel::Int8Scaling::tensor
                                                         : kernel::Int8Scaling::row,
                                 .rotation = p_.transposed ? 0 : form_.rotation};
    if (p_.transposed) how.col_scale = form_.row_scale;
    if (input_ == InputCodes::int4) how.range = kernel::IntegerRange::int4();
    if (!by_block && p_.scaling.of == FloatScaling::Of::given) how.given_scale = &p_.scaling.scale;
    kernel::quantize_int8(x, how, {x_codes, cols, x_scales, blocks()}, scratch.rest(), threads_);
    for (int64_t n0 = 0; n0 < n_; n0 += step_) {
      const int64_t rows = std::min(step_, n_ - n0);
      const Operand w = weight(n0, rows, values, codes);
      Int8Product product{.m = m_, .n = rows, .k = k_, .x = {x_codes, cols}, .epilogue = epilogue(n0)};
      product.w = {
          .codes = static_cast<const int8_t*>(w.data), .stride = w.stride, .int4 = w.code == ElementCode::int4};
      if (by_block) {
        product.x.scales = x_scales;
        product.x.scales_stride = blocks();
        product.w.scales = static_cast<const float*>(w.scales.data);
        product.w.scales_stride = w.scales.stride;
      } else if (how.given_scale) {
        product.epilogue.scale *= *how.given_scale;
      } else if (per_tensor) {
        product.epilogue.scale *= x_scales[0];
      } else {
        product.epilogue.row_scale = x_scales;
      }
      if (p_.transposed)
        kernel::int8_transposed(product, y, scratch.rest(), threads_);
      else
        kernel::int8_forward(product, columns_from(y, n0), scratch.rest(), threads_);
    }
  }

  Source rotated(const Source& x, float* out) const {
    kernel::parallel_row_runs(m_, threads_, [&](int64_t row0, int64_t rows) {
      kernel::cast(rows_of(x, row0, rows), DType::f32, out + row0 * k_, k_);
      kernel::rotate_convrot(out + row0 * k_, rows * k_, form_.rotation);
    });
    return {out, DType::f32, m_, k_, k_};
  }

  void rotate_back(const Output& from, const Output& y) const {
    auto* values = static_cast<float*>(from.data);
    kernel::parallel_row_runs(m_, threads_, [&](int64_t row0, int64_t rows) {
      kernel::rotate_convrot(values + row0 * k_, rows * k_, form_.rotation);
      auto* out = static_cast<std::byte*>(y.data) + row0 * y.stride * (facts(y.dtype).bits / 8);
      kernel::cast({values + row0 * k_, DType::f32, rows, k_, k_}, y.dtype, out, y.stride);
    });
  }

  const Matmul& p_;
  const Layout& layout_;
  int threads_;
  int64_t m_, n_, k_;
  MatmulForm form_;
  bool decoded_ = false;  ///< the format has no form: its rows are decoded to float32
  int64_t step_ = 0;      ///< rows of the weight in one product of the kernels
  InputCodes input_ = InputCodes::none;
  bool rotates_input_ = false, rotates_output_ = false;
};

}  // namespace

MatmulPath matmul_path(const Matmul& product) {
  return Run(product, 1).path();
}

size_t matmul_scratch_bytes(const Matmul& product, int threads) {
  return Run(product, threads).bytes();
}

void matmul(const Matmul& product, const Output& y, std::span<std::byte> scratch, int threads) {
  Run(product, threads).compute(y, scratch);
}

}  // namespace mezzotint::formats
