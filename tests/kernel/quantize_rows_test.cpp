#include "mezzotint/kernel/gemm/quantize_rows.h"

#include "kernel/matrix.h"
#include "mezzotint/base/error.h"

namespace mezzotint::kernel::test {
namespace {

/// ConvRot's matrix from its closed form.
double convrot(int64_t i, int64_t j, int64_t group) {
  double sign = 1;
  for (int64_t g = group; g > 1; g /= 4, i /= 4, j /= 4)
    if (i % 4 + j % 4 == 3) sign = -sign;
  return sign / std::sqrt(static_cast<double>(group));
}

struct Result {
  Matrix codes, scales;
};

Result quantize(const Source& x, const Int8Quantization& how, int threads) {
  const int64_t cols = how.prologue == Prologue::swiglu ? x.cols / 2 : x.cols;
  Result out{Matrix(x.rows, cols, 1, 3, 1), Matrix(x.rows, (cols + 127) / 128 + 1, 4, 1)};
  std::vector<std::byte> scratch(quantize_int8_scratch_bytes(x.rows, cols, threads) + 1);
  quantize_int8(x, how,
                {reinterpret_cast<int8_t*>(out.codes.data()), out.codes.stride(),
                 reinterpret_cast<float*>(out.scales.data()), out.scales.stride()},
                std::span(scratch).subspan(1), threads);
  EXPECT_TRUE(out.codes.neighbours_untouched());
  return out;
}

/// The scalar level's result; every level and thread count must give the same bytes.
Result same_everywhere(const Source& x, const Int8Quantization& how) {
  const ScopedIsaCap scalar(Isa::scalar);
  Result first = quantize(x, how, 1);
  for (const Isa isa : enabled_isas())
    for (const int threads : {1, 2}) {
      const ScopedIsaCap cap(isa);
      Result other = quantize(x, how, threads);
      EXPECT_TRUE(other.codes.elements() == first.codes.elements()) << name(isa);
      EXPECT_TRUE(other.scales.elements() == first.scales.elements()) << name(isa);
    }
  return first;
}

int8_t code_of(float v, float scale, double lowest) {
  const float y = v / scale;
  return std::isnan(y) ? int8_t{0} : static_cast<int8_t>(std::clamp(std::nearbyint(double{y}), lowest, 127.0));
}

TEST(QuantizeRows, FollowsTheFormula) {
  auto rng = test_rng();
  for (const DType dtype : kSourceTypes)
    for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 127}, {19, 129}, {40, 384}, {2, 1000}})
      for (const Fill kind : {Fill::weights, Fill::any_bits})
        for (const Int8Scaling scaling : {Int8Scaling::row, Int8Scaling::block, Int8Scaling::tensor})
          for (const bool folded : {false, true}) {
            Matrix x(rows, cols, bytes_of(dtype), 5, 1);
            fill(x, dtype, kind, rng);
            std::vector<float> factors;
            for (int64_t c = 0; c < cols; ++c) factors.push_back(std::exp2(static_cast<float>(rng() % 7)) * 0.3f);
            Int8Quantization how{.scaling = scaling, .col_scale = folded ? factors.data() : nullptr};
            Result got = same_everywhere(x.source(dtype), how);
            const auto at = [&](int64_t r, int64_t c) {
              const float v = value(x, dtype, r, c);
              return folded ? v * factors[static_cast<size_t>(c)] : v;
            };
            const auto scale_of = [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
              float amax = 0;
              for (int64_t r = r0; r < r1; ++r)
                for (int64_t c = c0; c < c1; ++c)
                  if (std::isfinite(at(r, c))) amax = std::max(amax, std::abs(at(r, c)));
              return std::max(amax / 127, 1e-30f);
            };
            const int64_t width = scaling == Int8Scaling::block ? 128 : cols;
            const float of_all = scale_of(0, rows, 0, cols);
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t c0 = 0; c0 < cols; c0 += width) {
                const int64_t c1 = std::min<int64_t>(cols, c0 + width);
                const bool all = scaling == Int8Scaling::tensor;
                const float scale = all ? of_all : scale_of(r, r + 1, c0, c1);
                ASSERT_EQ(got.scales.get<float>(all ? 0 : r, c0 / width), scale);
                for (int64_t c = c0; c < c1; ++c)
                  ASSERT_EQ(got.codes.get<int8_t>(r, c), code_of(at(r, c), scale, -127)) << at(r, c);
              }
          }
}

TEST(QuantizeRows, AGivenScaleIsTaken) {
  auto rng = test_rng();
  Matrix x(7, 300, 4);
  fill(x, DType::f32, Fill::weights, rng);
  const float scale = 0.0001f;
  Result got = same_everywhere(x.source(DType::f32), {.given_scale = &scale});
  int lowest = 0, changed = 0;
  for (int64_t r = 0; r < 7; ++r)
    for (int64_t c = 0; c < 300; ++c) {
      const float v = x.get<float>(r, c);
      ASSERT_EQ(got.codes.get<int8_t>(r, c), code_of(v, scale, -128));
      lowest += got.codes.get<int8_t>(r, c) == -128;
      changed += got.codes.get<int8_t>(r, c) != code_of(v, 1.25f * scale, -128);
    }
  EXPECT_GT(lowest, 0);
  EXPECT_GT(changed, 0);
}

TEST(QuantizeRows, IntegersOfFourBits) {
  auto rng = test_rng();
  const float given = 0.01f;
  const Int8Quantization ways[] = {{}, {.scaling = Int8Scaling::tensor}, {.given_scale = &given}};
  for (const DType dtype : kSourceTypes)
    for (const Fill kind : {Fill::weights, Fill::any_bits})
      for (const Int8Quantization& how : ways) {
        constexpr int64_t kRows = 9, kCols = 301;
        Matrix x(kRows, kCols, bytes_of(dtype), 5, 1);
        fill(x, dtype, kind, rng);
        for (int64_t c = 0; c < kCols; ++c) dtype == DType::f32 ? x.set<float>(3, c, 0) : x.set<uint16_t>(3, c, 0);
        Int8Quantization four = how;
        four.range = IntegerRange::int4();
        Result got = same_everywhere(x.source(dtype), four);
        const bool all = how.scaling == Int8Scaling::tensor;
        int sevens = 0, changed = 0;
        for (int64_t r = 0; r < kRows; ++r) {
          float amax = 0;
          for (int64_t row = all ? 0 : r; row < (all ? kRows : r + 1); ++row)
            for (int64_t c = 0; c < kCols; ++c)
              if (const float v = value(x, dtype, row, c); std::isfinite(v)) amax = std::max(amax, std::abs(v));
          const float scale = how.given_scale != nullptr ? given : std::max(amax / 7, 0x1p-126f);
          if (how.given_scale == nullptr) {
            ASSERT_EQ(got.scales.get<float>(all ? 0 : r, 0), scale);
          }
          for (int64_t c = 0; c < kCols; ++c) {
            const int code = got.codes.get<int8_t>(r, c);
            const auto expected = [&](float s) {
              const float y = value(x, dtype, r, c) / s;
              return std::isnan(y) ? 0 : static_cast<int>(std::clamp(std::nearbyint(y), -7.0f, 7.0f));
            };
            ASSERT_EQ(code, expected(scale)) << value(x, dtype, r, c);
            sevens += std::abs(code) == 7;
            changed += code != expected(1.25f * scale);
          }
        }
        EXPECT_GT(sevens, 0);
        EXPECT_GT(changed, 0);
      }
}

// Values before quantization are not seen, so codes times scales are held against the exact values: half a step, and
// the transform's own error: eps times a few operations on |v| for the activations (64, gemm_int8_test), 2 log4(g) for
// the rotation (hadamard.h). The controls are the functions that these are mistaken for.
TEST(QuantizeRows, PrologueAndRotationComeFirst) {
  auto rng = test_rng();
  constexpr int64_t kRows = 5, kCols = 256;
  for (const Prologue prologue : {Prologue::none, Prologue::gelu_tanh, Prologue::swiglu})
    for (const int64_t group : {0, 4, 64, 256}) {
      Matrix x(kRows, prologue == Prologue::swiglu ? 2 * kCols : kCols, 4);
      fill(x, DType::f32, Fill::weights, rng);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t c = 0; c < x.cols(); ++c) x.set<float>(r, c, x.get<float>(r, c) * 50);
      Result got = same_everywhere(x.source(DType::f32), {.prologue = prologue, .rotation = group});
      int controls = 0;
      for (int64_t r = 0; r < kRows; ++r) {
        std::vector<double> v(kCols), other(kCols);
        for (int64_t c = 0; c < kCols; ++c) {
          const double a = x.get<float>(r, c);
          const auto i = static_cast<size_t>(c);
          v[i] = other[i] = a;
          if (prologue == Prologue::gelu_tanh) {
            v[i] = 0.5 * a * (1 + std::tanh(std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
          } else if (prologue == Prologue::swiglu) {
            const double up = x.get<float>(r, c + kCols);
            v[i] = a / (1 + std::exp(-a)) * up;
            other[i] = up / (1 + std::exp(-up)) * a;  // the halves the other way round
          }
        }
        const double scale = got.scales.get<float>(r, 0);
        const int64_t g = group == 0 ? 1 : group;
        for (int64_t c = 0; c < kCols; ++c) {
          double exact = 0, wrong = 0, sum = 0;
          for (int64_t j = c / g * g; j < c / g * g + g; ++j) {
            const double h = group == 0 ? 1 : convrot(c % g, j % g, g);
            exact += h * v[static_cast<size_t>(j)];
            wrong += (j == c ? 1 : 0) * other[static_cast<size_t>(j)];
            sum += std::abs(h * v[static_cast<size_t>(j)]);
          }
          const double eps = 0x1p-24, transform = (64 + 2 * std::log2(static_cast<double>(g)) / 2) * eps * sum;
          const double bound = scale * (0.5 + 128 * eps) + transform;
          const double found = got.codes.get<int8_t>(r, c) * scale;
          EXPECT_LE(std::abs(found - exact), bound) << r << "," << c;
          controls += std::abs(found - wrong) > bound;
        }
      }
      EXPECT_EQ(controls > 0, group != 0 || prologue != Prologue::none);
    }
}

TEST(QuantizeRows, ZerosHaveAFiniteScale) {
  const std::vector<float> x(260, 0.0f);
  Result got = same_everywhere({x.data(), DType::f32, 2, 130, 130}, {.scaling = Int8Scaling::block});
  EXPECT_EQ(got.scales.get<float>(1, 1), 1e-30f);
  for (const uint8_t code : got.codes.elements()) EXPECT_EQ(code, 0);
}

TEST(QuantizeRows, TooLittleScratchIsAnError) {
  const float x[4] = {};
  int8_t codes[4];
  float scale;
  std::byte few[4];
  EXPECT_THROW(quantize_int8({x, DType::f32, 1, 4, 4}, {}, {codes, 4, &scale, 1}, few), Error);
}

}  // namespace
}  // namespace mezzotint::kernel::test
