#include "mezzotint/kernel/gemm/float_gemm.h"

#include "kernel/gemm_operands.h"

namespace mezzotint::kernel::test {
namespace {

const std::vector<OperandKind> kWeights = {
    {"f32", ElementCode::f32},
    {"bf16", ElementCode::bf16},
    {"f16", ElementCode::f16},
    {"e4m3", ElementCode::e4m3},
    {"e5m2", ElementCode::e5m2},
    {"int8", ElementCode::int8},
    {"int4", ElementCode::int4},
    {"e2m1", ElementCode::e2m1},
    {"e2m1 x e4m3, blocked", ElementCode::e2m1, ScaleCode::e4m3, 1, 16, true},
    {"e2m1 x e4m3", ElementCode::e2m1, ScaleCode::e4m3, 1, 16},
    {"e4m3 x e8m0, blocked", ElementCode::e4m3, ScaleCode::e8m0, 1, 32, true},
    {"int4 x e8m0 of 64", ElementCode::int4, ScaleCode::e8m0, 1, 64},
    {"int8 x f32 of 128 x 128", ElementCode::int8, ScaleCode::f32, 128, 128},
    {"int8 x f32 of 1 x 128", ElementCode::int8, ScaleCode::f32, 1, 128},
    {"e4m3 x f32 of 64 x 64", ElementCode::e4m3, ScaleCode::f32, 64, 64},
    {"e4m3 x f32 of 8 x 8", ElementCode::e4m3, ScaleCode::f32, 8, 8},
};
const std::vector<OperandKind> kActivations = {
    {"bf16", ElementCode::bf16},
    {"f32", ElementCode::f32},
    {"e4m3", ElementCode::e4m3},
    {"f16", ElementCode::f16},
    {"e2m1 x e4m3", ElementCode::e2m1, ScaleCode::e4m3, 1, 16},
    {"int8", ElementCode::int8},
    {"e4m3 x e8m0", ElementCode::e4m3, ScaleCode::e8m0, 1, 32},
};

struct Sizes {
  int64_t m, n, k;
};
const std::vector<Sizes> kSizes = {{1, 1, 1},      {1, 17, 40},  {2, 1, 1},    {3, 65, 129}, {6, 33, 300},
                                   {7, 3, 1},      {7, 130, 64}, {15, 70, 31}, {9, 400, 33}, {1100, 5, 24},
                                   {20, 40, 1030}, {4, 3, 0},    {0, 3, 5},    {8, 0, 5}};

/// A product in double precision: every element with the sum of magnitudes that its bound needs.
struct Reference {
  std::vector<double> value, magnitude;
  int64_t rows, columns, depth;

  Reference(const CodedMatrix& x, const CodedMatrix& w, bool transposed, const float* reduction_scale)
      : rows(x.rows()), columns(transposed ? w.cols() : w.rows()), depth(x.cols()) {
    value.assign(static_cast<size_t>(rows * columns), 0);
    magnitude = value;
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < columns; ++n)
        for (int64_t k = 0; k < depth; ++k) {
          const double factor = reduction_scale == nullptr ? 1 : reduction_scale[k];
          const double product = x.at(m, k) * factor * (transposed ? w.at(k, n) : w.at(n, k));
          value[index(m, n)] += product;
          magnitude[index(m, n)] += std::abs(product);
        }
  }
  size_t index(int64_t m, int64_t n) const { return static_cast<size_t>(m * columns + n); }
};

double gelu(double v) {
  return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
}

/// Unit roundoffs.
constexpr double kF32 = 0x1p-24, kBf16 = 0x1p-8, kF16 = 0x1p-11;

bool inexact_in_bf16(ElementCode code) {
  return code == ElementCode::f32 || code == ElementCode::f16;
}

/// How many elements of y lie outside of the bound that float_gemm.h derives.
int64_t violations(Matrix& y, DType dtype, const FloatGemm& p, const Reference& want, bool in_bf16) {
  int64_t count = 0;
  const Epilogue& e = p.epilogue;
  for (int64_t m = 0; m < want.rows; ++m)
    for (int64_t n = 0; n < want.columns; ++n) {
      const double scale = static_cast<double>(e.scale) * (e.row_scale == nullptr ? 1 : e.row_scale[m]) *
                           (e.col_scale == nullptr ? 1 : e.col_scale[n]);
      const double bias = e.bias == nullptr ? 0 : e.bias[n];
      const size_t i = want.index(m, n);
      double v = want.value[i] * scale + bias;
      double bound = (static_cast<double>(want.depth) + 4) * kF32 * want.magnitude[i];
      if (in_bf16) {
        int roundings = inexact_in_bf16(p.x.code) + inexact_in_bf16(p.w.code) + (p.reduction_scale != nullptr);
        bound += 1.01 * roundings * kBf16 * want.magnitude[i] + (static_cast<double>(want.depth) + 1) * 0x1p-110;
      }
      bound = bound * std::abs(scale) + 4 * kF32 * (std::abs(want.value[i] * scale) + std::abs(v));
      if (e.activation == Activation::gelu_tanh) {
        bound = 1.13 * bound + 0x1p-20 * std::abs(v);  // 1.13: the largest slope of gelu
        v = gelu(v);
      }
      if (dtype != DType::f32) bound += (dtype == DType::bf16 ? kBf16 : kF16) * (std::abs(v) + bound) + 0x1p-25;
      const double got = value(y, dtype, m, n);
      const bool same = std::isnan(v) ? std::isnan(got) : std::isinf(v) ? got == v : std::abs(got - v) <= bound;
      count += !same;
    }
  return count;
}

/// Runs in scratch of exactly the size asked for with 1 thread, and mostly with 2 (an OpenMP team is slow to gather on
/// a busy machine); both must give the same bytes and write nothing beside them.
Matrix run(const FloatGemm& p, int64_t rows, int64_t columns, DType dtype) {
  Matrix results[2] = {Matrix(rows, columns, bytes_of(dtype), 3, 1), Matrix(rows, columns, bytes_of(dtype), 3, 1)};
  const bool both = p.compute == Compute::automatic;
  for (int threads = 1; threads <= 1 + both; ++threads) {
    Matrix& y = results[threads - 1];
    Matrix scratch(1, static_cast<int64_t>(float_gemm_scratch(p, threads)), 1, 0, threads);
    float_gemm(p, {y.data(), dtype, y.stride()}, scratch.data(), threads);
    EXPECT_TRUE(scratch.neighbours_untouched());
    EXPECT_TRUE(y.neighbours_untouched());
  }
  if (both) {
    EXPECT_TRUE(results[0].elements() == results[1].elements()) << "one and two threads differ";
  }
  return results[0];
}

std::vector<float> floats(int64_t n, std::mt19937_64& rng) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = std::uniform_real_distribution<float>(0.25f, 2)(rng) * (rng() % 4 == 0 ? -1.0f : 1.0f);
  return values;
}

/// Every level with every way to compute.
template <class F>
void at_every_level(F f) {
  for (const Isa isa : every_enabled_isa()) {
    const ScopedIsaCap cap(isa);
    for (const Compute compute : {Compute::automatic, Compute::bf16, Compute::f32}) {
      SCOPED_TRACE(std::string(name(isa)) + ", compute " + std::to_string(static_cast<int>(compute)));
      f(isa, compute);
    }
  }
}

void check_products(bool transposed) {
  auto rng = test_rng();
  size_t turn = 0;
  for (const OperandKind& weight : kWeights)
    for (const Sizes& s : kSizes) {
      if (s.k == 0 && weight.scale != ScaleCode::none) continue;
      const OperandKind& activation = kActivations[turn++ % kActivations.size()];
      SCOPED_TRACE(activation.name + " * " + weight.name + ", M " + std::to_string(s.m) + ", N " + std::to_string(s.n) +
                   ", K " + std::to_string(s.k));
      const CodedMatrix x(activation, s.m, transposed ? s.n : s.k, rng), w(weight, s.n, s.k, rng);
      const std::vector<float> factors = floats(x.cols(), rng);
      FloatGemm p;
      p.x = x.operand();
      p.w = w.operand();
      p.transposed = transposed;
      if (transposed && turn % 3 == 0) p.reduction_scale = factors.data();
      const Reference want(x, w, transposed, p.reduction_scale);
      const std::vector<float> rows = floats(want.rows, rng), columns = floats(want.columns, rng),
                               bias = floats(want.columns, rng);
      // Results near 1, far from the limits of f16.
      double largest = 1e-30;
      for (const double magnitude : want.magnitude) largest = std::max(largest, magnitude);
      p.epilogue.scale = static_cast<float>(4 / largest);
      if (turn % 2 == 0) p.epilogue.row_scale = rows.data();
      if (turn % 3 == 0) p.epilogue.col_scale = columns.data();
      if (turn % 4 < 2) p.epilogue.bias = bias.data();
      if (turn % 5 == 0) p.epilogue.activation = Activation::gelu_tanh;
      at_every_level([&](Isa, Compute compute) {
        p.compute = compute;
        const DType dtype = kSourceTypes[turn % 3];
        Matrix y = run(p, want.rows, want.columns, dtype);
        EXPECT_EQ(violations(y, dtype, p, want, computes_in_bf16(p)), 0);
      });
    }
}

TEST(FloatGemm, Forward) {
  check_products(false);
}

TEST(FloatGemm, Transposed) {
  check_products(true);
}

/// The bound is tight enough to see one weight that is read as its neighbouring code, a scale of the wrong block and a
/// column that is exchanged.
TEST(FloatGemm, TheBoundSeesOneWrongElement) {
  auto rng = test_rng();
  for (const OperandKind& weight : kWeights) {
    if (bits(weight.code) > 8) continue;
    const CodedMatrix x(kActivations[0], 3, 150, rng), w(weight, 20, 150, rng);
    CodedMatrix wrong = w;
    int64_t largest = 0;
    for (int64_t c = 0; c < 150; ++c)
      if (std::abs(w.at(7, c)) > std::abs(w.at(7, largest))) largest = c;
    wrong.misread(7, largest, w.at(7, largest) * 1.0625);  // half of the smallest relative step of e4m3
    FloatGemm p;
    p.x = x.operand();
    p.w = w.operand();
    at_every_level([&](Isa, Compute compute) {
      p.compute = compute;
      Matrix y = run(p, 3, 20, DType::f32);
      EXPECT_EQ(violations(y, DType::f32, p, Reference(x, w, false, nullptr), computes_in_bf16(p)), 0) << weight.name;
      EXPECT_GE(violations(y, DType::f32, p, Reference(x, wrong, false, nullptr), computes_in_bf16(p)), 2)
          << weight.name;
    });
  }
}

/// NaN and inf of codes, activations and scales arrive where IEEE arithmetic puts them, and nowhere else.
TEST(FloatGemm, SpecialValues) {
  auto rng = test_rng();
  for (const bool transposed : {false, true})
    for (const OperandKind& weight : kWeights)
      for (const int64_t m : {1, 5, 8}) {
        SCOPED_TRACE(weight.name + (transposed ? ", transposed, M " : ", M ") + std::to_string(m));
        const CodedMatrix x(kActivations[static_cast<size_t>(m) % 2], m, transposed ? 70 : 90, rng,
                            m == 5 ? Draw::specials : Draw::finite);
        const CodedMatrix w(weight, 70, 90, rng, m == 5 ? Draw::finite : Draw::specials);
        FloatGemm p;
        p.x = x.operand();
        p.w = w.operand();
        p.transposed = transposed;
        const Reference want(x, w, transposed, nullptr);
        at_every_level([&](Isa, Compute compute) {
          p.compute = compute;
          Matrix y = run(p, want.rows, want.columns, DType::f32);
          EXPECT_EQ(violations(y, DType::f32, p, want, computes_in_bf16(p)), 0);
        });
      }
}

/// Which way is taken: bf16 only where the level has it and the operands are exact.
TEST(FloatGemm, ChoosesTheExactWay) {
  auto rng = test_rng();
  const auto in_bf16 = [&](const OperandKind& x, const OperandKind& w, Compute compute) {
    const CodedMatrix a(x, 2, 128, rng), b(w, 3, 128, rng);
    FloatGemm p;
    p.x = a.operand();
    p.w = b.operand();
    p.compute = compute;
    return computes_in_bf16(p);
  };
  const OperandKind bf16{"bf16", ElementCode::bf16}, f32{"f32", ElementCode::f32}, e4m3{"e4m3", ElementCode::e4m3},
      tiles{"tiles", ElementCode::e4m3, ScaleCode::f32, 64, 64}, tiny{"tiny", ElementCode::e4m3, ScaleCode::f32, 8, 8};
  const bool has = enabled(Isa::avx512bf16);
  EXPECT_EQ(in_bf16(bf16, e4m3, Compute::automatic), has);
  EXPECT_EQ(in_bf16(e4m3, e4m3, Compute::automatic), has);
  EXPECT_EQ(in_bf16(bf16, tiles, Compute::automatic), has);
  EXPECT_EQ(in_bf16(f32, e4m3, Compute::bf16), has);
  EXPECT_FALSE(in_bf16(f32, e4m3, Compute::automatic));
  EXPECT_FALSE(in_bf16(bf16, f32, Compute::automatic));
  EXPECT_FALSE(in_bf16(bf16, tiny, Compute::bf16));
  EXPECT_FALSE(in_bf16(bf16, e4m3, Compute::f32));
  const ScopedIsaCap cap(Isa::avx512);
  EXPECT_FALSE(in_bf16(bf16, e4m3, Compute::bf16));
}

}  // namespace
}  // namespace mezzotint::kernel::test
