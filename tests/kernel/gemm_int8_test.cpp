#include "mezzotint/kernel/gemm/int8_gemm.h"

#include "kernel/matrix.h"
#include "mezzotint/base/error.h"

namespace mezzotint::kernel::test {
namespace {

enum class Direction { forward, transposed };
enum class Codes { any, extreme };  // extreme: -128 alone, the largest sums there are

struct Shape {
  int64_t m, n, k;
};
/// Around every tile, vector and block; longer than what is packed at a time; longer than a stretch.
constexpr Shape kShapes[] = {{1, 1, 1},     {1, 300, 129}, {2, 128, 128}, {3, 5, 7},      {4, 130, 383}, {5, 33, 640},
                             {12, 64, 256}, {13, 131, 67}, {27, 257, 95}, {23, 40, 4099}, {1, 7, 2300},  {31, 1, 130},
                             {7, 300, 1},   {3, 2, 65600}, {7, 3, 65537}, {40, 513, 130}, {70, 16, 16}};

/// Operands of a product, their rows with gaps, at odd addresses.
struct Operands {
  Shape s;
  Direction direction;
  bool scaled;
  Matrix x, w;
  std::vector<float> x_scales, w_scales, row_scale, col_scale, bias;
  int64_t x_blocks, w_blocks;

  int64_t rows() const { return s.m; }
  int64_t cols() const { return direction == Direction::forward ? s.n : s.k; }
  int64_t depth() const { return direction == Direction::forward ? s.k : s.n; }

  Operands(const Shape& shape, Direction d, bool block_scaled, Codes codes, std::mt19937_64& rng)
      : s(shape), direction(d), scaled(block_scaled), x(s.m, depth(), 1, 5, 3), w(s.n, s.k, 1, 9, 1) {
    for (Matrix* matrix : {&x, &w})
      for (int64_t r = 0; r < matrix->rows(); ++r)
        for (int64_t c = 0; c < matrix->cols(); ++c)
          matrix->set<int8_t>(r, c, codes == Codes::extreme ? int8_t{-128} : static_cast<int8_t>(rng()));
    const auto numbers = [&](int64_t count, float low, float high) {
      std::uniform_real_distribution<float> some(low, high);
      std::vector<float> list(static_cast<size_t>(count));
      for (float& v : list) v = some(rng);
      return list;
    };
    x_blocks = (depth() + 127) / 128 + 1, w_blocks = (s.k + 127) / 128 + 2;
    x_scales = numbers(s.m * x_blocks, 0.001f, 0.01f);
    w_scales = numbers(((s.n + 127) / 128) * w_blocks, 0.001f, 0.01f);
    row_scale = numbers(s.m, 0.001f, 0.01f);
    col_scale = numbers(cols(), 0.001f, 0.01f);
    bias = numbers(cols(), -2, 2);
  }

  Int8Product product(const Epilogue& epilogue = {}) {
    Int8Product p{s.m, s.n, s.k, {}, {}, epilogue};
    p.x = {reinterpret_cast<const int8_t*>(x.data()), x.stride(), scaled ? x_scales.data() : nullptr, x_blocks};
    p.w = {reinterpret_cast<const int8_t*>(w.data()), w.stride(), scaled ? w_scales.data() : nullptr, w_blocks};
    return p;
  }
  Epilogue epilogue(bool with_scales) const {
    Epilogue e;
    if (with_scales) {
      e.row_scale = row_scale.data(), e.col_scale = col_scale.data();
      e.scale = 0.75f;
    }
    e.bias = bias.data();
    return e;
  }

  /// The sum for one element of y by the definition in int8_gemm.h.
  float sum(int64_t row, int64_t col) {
    const int64_t step = scaled ? 128 : 65536;
    float acc = 0;
    for (int64_t from = 0; from < depth(); from += step) {
      int64_t exact = 0;
      for (int64_t r = from; r < std::min(depth(), from + step); ++r)
        exact += int64_t{x.get<int8_t>(row, r)} *
                 (direction == Direction::forward ? w.get<int8_t>(col, r) : w.get<int8_t>(r, col));
      if (!scaled) {
        acc += static_cast<float>(exact);
        continue;
      }
      const int64_t along = from / 128, across = col / 128;
      const float w_scale = direction == Direction::forward ? w_scales[static_cast<size_t>(across * w_blocks + along)]
                                                            : w_scales[static_cast<size_t>(along * w_blocks + across)];
      acc = std::fma(static_cast<float>(exact), x_scales[static_cast<size_t>(row * x_blocks + along)] * w_scale, acc);
    }
    return acc;
  }
  float expected(int64_t row, int64_t col, const Epilogue& e) {
    float v = sum(row, col);
    const float factor = (e.row_scale != nullptr ? e.row_scale[row] : 1.0f) * e.scale;
    v = e.col_scale != nullptr ? v * (factor * e.col_scale[col]) : v * factor;
    return e.bias != nullptr ? v + e.bias[col] : v;
  }
};

template <class Y>
void multiply(Operands& o, const Epilogue& e, const Y& y, int threads) {
  std::vector<std::byte> scratch(int8_gemm_scratch_bytes(o.s.m, o.s.n, o.s.k, threads), std::byte{0xEE});
  o.direction == Direction::forward ? int8_forward(o.product(e), y, scratch, threads)
                                    : int8_transposed(o.product(e), y, scratch, threads);
}

template <class F>
void for_each_operands(F check) {
  auto rng = test_rng();
  for (const Shape& s : kShapes)
    for (const Direction d : {Direction::forward, Direction::transposed})
      for (const bool scaled : {false, true})
        for (const Codes codes : {Codes::any, Codes::extreme}) {
          if (codes == Codes::extreme && s.k < 65536 && s.k != 129) continue;
          SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << (scaled ? " block-wise" : " per row")
                                          << (d == Direction::forward ? " forward" : " transposed"));
          Operands turned(d == Direction::forward ? s : Shape{s.m, s.k, s.n}, d, scaled, codes, rng);
          check(turned);
        }
}

TEST(GemmInt8, IsTheDefinitionAtEveryLevelAndThreadCount) {
  for_each_operands([](Operands& o) {
    const Epilogue e = o.epilogue(!o.scaled);
    std::vector<float> expected;
    for (int64_t r = 0; r < o.rows(); ++r)
      for (int64_t c = 0; c < o.cols(); ++c) expected.push_back(o.expected(r, c, e));
    for (const Isa isa : every_enabled_isa())
      for (const int threads : {1, 2, 3}) {
        const ScopedIsaCap cap(isa);
        Matrix y(o.rows(), o.cols(), 4, 3, 1);
        multiply(o, e, Output{y.data(), DType::f32, y.stride()}, threads);
        size_t wrong = 0;
        for (int64_t r = 0; r < o.rows(); ++r)
          for (int64_t c = 0; c < o.cols(); ++c)
            wrong += std::bit_cast<uint32_t>(expected[static_cast<size_t>(r * o.cols() + c)]) != y.get<uint32_t>(r, c);
        ASSERT_EQ(wrong, 0u) << name(isa) << " " << threads << " threads";
        ASSERT_TRUE(y.neighbours_untouched()) << name(isa);
      }
  });
}

// One code, one scale, one bias at a time: the comparison above sees each of them.
TEST(GemmInt8, ControlsAreSeen) {
  auto rng = test_rng();
  for (const Direction d : {Direction::forward, Direction::transposed})
    for (const bool scaled : {false, true}) {
      Operands o({5, 131, 259}, d, scaled, Codes::any, rng);
      const Epilogue e = o.epilogue(true);
      const auto answer = [&] {
        Matrix y(o.rows(), o.cols(), 4);
        multiply(o, e, Output{y.data(), DType::f32, y.stride()}, 1);
        return y.elements();
      };
      const auto right = answer();
      const auto differs = [&](auto& value, auto other) {
        const auto before = value;
        value = static_cast<std::remove_cvref_t<decltype(value)>>(other);
        const bool seen = answer() != right;
        value = before;
        EXPECT_TRUE(answer() == right);
        return seen;
      };
      EXPECT_TRUE(differs(*o.x.at(4, o.depth() - 1), *o.x.at(4, o.depth() - 1) ^ 1));
      EXPECT_TRUE(differs(*o.w.at(130, 258), *o.w.at(130, 258) ^ 1));
      EXPECT_TRUE(differs(o.row_scale[4], 1.25f * o.row_scale[4]));
      EXPECT_TRUE(differs(o.col_scale.back(), 1.25f * o.col_scale.back()));
      EXPECT_TRUE(differs(o.bias.back(), 1.25f * o.bias.back()));
      const auto last_x = static_cast<size_t>(5 * o.x_blocks - 2), last_w = static_cast<size_t>(2 * o.w_blocks - 3);
      EXPECT_EQ(differs(o.x_scales[last_x], 1.25f * o.x_scales[last_x]), scaled);
      EXPECT_EQ(differs(o.w_scales[last_w], 1.25f * o.w_scales[last_w]), scaled);
    }
}

TEST(GemmInt8, OutputsAreRoundedOnce) {
  for_each_operands([](Operands& o) {
    const Epilogue e = o.epilogue(true);
    for (const Isa isa : every_enabled_isa())
      for (const DType dtype : {DType::bf16, DType::f16}) {
        const ScopedIsaCap cap(isa);
        Matrix y(o.rows(), o.cols(), 2, 1, 1);
        multiply(o, e, Output{y.data(), dtype, y.stride()}, 1);
        for (int64_t r = 0; r < o.rows(); r += 3)
          for (int64_t c = 0; c < o.cols(); c += 7) {
            const float v = o.expected(r, c, e);
            ASSERT_EQ(y.get<uint16_t>(r, c), dtype == DType::bf16 ? Bf16::encode(v) : Fp16::encode(v)) << name(isa);
          }
        ASSERT_TRUE(y.neighbours_untouched()) << name(isa);
      }
  });
}

double gelu_of(double v) {
  return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
}

// gelu's own error: two ulp of e^x, one each of five operations that lead to it with the argument's factor |2u| (at
// most about 20 where the result still counts), one of the sum and one of the division: below 64 eps of |v|.
TEST(GemmInt8, GeluFollowsTheBias) {
  auto rng = test_rng();
  Operands o({9, 200, 300}, Direction::forward, true, Codes::any, rng);
  for (auto& s : o.x_scales) s *= 0.5f;
  Epilogue e = o.epilogue(false);
  e.activation = Activation::gelu_tanh;
  std::vector<std::vector<uint8_t>> all;
  for (const Isa isa : every_enabled_isa()) {
    const ScopedIsaCap cap(isa);
    Matrix y(o.rows(), o.cols(), 4);
    multiply(o, e, Output{y.data(), DType::f32, y.stride()}, 1);
    all.push_back(y.elements());
    EXPECT_TRUE(all.back() == all.front()) << name(isa);
    int control = 0;
    for (int64_t r = 0; r < o.rows(); ++r)
      for (int64_t c = 0; c < o.cols(); ++c) {
        const double v = o.expected(r, c, e), bound = 64 * 0x1p-24 * std::abs(v) + 1e-30;
        EXPECT_NEAR(y.get<float>(r, c), gelu_of(v), bound);
        control += std::abs(y.get<float>(r, c) - 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)))) > bound;
      }
    EXPECT_GT(control, 0) << "gelu by erf is another function";
  }
}

TEST(GemmInt8, BlockOutputsAreQuantizedResults) {
  for_each_operands([](Operands& o) {
    const Epilogue e = o.epilogue(true);
    const int64_t blocks = (o.cols() + 127) / 128;
    for (const Isa isa : every_enabled_isa()) {
      const ScopedIsaCap cap(isa);
      Matrix codes(o.rows(), o.cols(), 1, 3, 1), scales(o.rows(), blocks, 4, 1, 0);
      multiply(o, e,
               Int8BlockOutput{reinterpret_cast<int8_t*>(codes.data()), codes.stride(),
                               reinterpret_cast<float*>(scales.data()), scales.stride()},
               2);
      for (int64_t r = 0; r < o.rows(); r += 5)
        for (int64_t b = 0; b < blocks; ++b) {
          float amax = 0;
          for (int64_t c = b * 128; c < std::min(o.cols(), b * 128 + 128); ++c)
            amax = std::max(amax, std::abs(o.expected(r, c, e)));
          const float scale = std::max(amax / 127, 1e-30f);
          ASSERT_EQ(scales.get<float>(r, b), scale) << name(isa);
          for (int64_t c = b * 128; c < std::min(o.cols(), b * 128 + 128); ++c)
            ASSERT_EQ(codes.get<int8_t>(r, c), std::nearbyint(o.expected(r, c, e) / scale)) << name(isa);
        }
      ASSERT_TRUE(codes.neighbours_untouched() && scales.neighbours_untouched()) << name(isa);
    }
  });
}

// The products that codes of 8 bits with the same values have.
TEST(GemmInt8, WeightsOfFourBits) {
  auto rng = test_rng();
  for (const Shape& s : kShapes) {
    SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k);
    Operands o(s, Direction::forward, false, Codes::any, rng);
    Matrix packed(s.n, (s.k + 1) / 2, 1, 3, 1);
    for (int64_t r = 0; r < s.n; ++r)
      for (int64_t c = 0; c < packed.cols(); ++c) *packed.at(r, c) = static_cast<uint8_t>(rng());
    const auto unpack = [&] {
      for (int64_t r = 0; r < s.n; ++r)
        for (int64_t c = 0; c < s.k; ++c) {
          const int n = *packed.at(r, c / 2) >> (c % 2 * 4) & 15;
          o.w.set<int8_t>(r, c, static_cast<int8_t>(n > 7 ? n - 16 : n));
        }
    };
    const Epilogue e = o.epilogue(true);
    const auto answer = [&](bool int4, int threads) {
      Matrix y(s.m, s.n, 4, 3, 1);
      Matrix codes(s.m, s.n, 1, 3, 1), scales(s.m, (s.n + 127) / 128, 4, 1);
      Int8Product p = o.product(e);
      if (int4)
        p.w = {.codes = reinterpret_cast<const int8_t*>(packed.data()), .stride = packed.stride(), .int4 = true};
      std::vector<std::byte> scratch(int8_gemm_scratch_bytes(s.m, s.n, s.k, threads, int4));
      int8_forward(p, Output{y.data(), DType::f32, y.stride()}, scratch, threads);
      int8_forward(p,
                   Int8BlockOutput{reinterpret_cast<int8_t*>(codes.data()), codes.stride(),
                                   reinterpret_cast<float*>(scales.data()), scales.stride()},
                   scratch, threads);
      EXPECT_TRUE(y.neighbours_untouched() && codes.neighbours_untouched() && scales.neighbours_untouched());
      return std::tuple(y.elements(), codes.elements(), scales.elements());
    };
    unpack();
    const auto right = answer(false, 1);
    for (const Isa isa : every_enabled_isa())
      for (const int threads : {1, 3}) {
        const ScopedIsaCap cap(isa);
        ASSERT_TRUE(answer(true, threads) == right) << name(isa) << " " << threads << " threads";
      }
    *packed.at(s.n - 1, (s.k - 1) / 2) ^= 1;  // control: the last code but one, or the last
    EXPECT_FALSE(answer(true, 1) == right);
  }
}

TEST(GemmInt8, EmptyProductsAreBiasOrNothing) {
  const float bias[] = {1.5f, -2};
  float y[] = {7, 7};
  std::vector<std::byte> scratch(int8_gemm_scratch_bytes(1, 2, 0, 1));
  for (const Isa isa : every_enabled_isa()) {
    const ScopedIsaCap cap(isa);
    Int8Product p{.m = 1, .n = 2, .k = 0};
    p.epilogue.bias = bias;
    int8_forward(p, Output{y, DType::f32, 2}, scratch);
    EXPECT_EQ(y[0], 1.5f);
    EXPECT_EQ(y[1], -2.0f);
    p.m = 0;
    y[0] = 7;
    int8_forward(p, Output{y, DType::f32, 2}, scratch);
    EXPECT_EQ(y[0], 7.0f);
  }
}

TEST(GemmInt8, TooLittleScratchIsAnError) {
  auto rng = test_rng();
  Operands o({5, 33, 300}, Direction::forward, false, Codes::any, rng);
  Matrix y(5, 33, 4);
  std::byte few[8];
  EXPECT_THROW(int8_forward(o.product(), Output{y.data(), DType::f32, 33}, few), Error);
}

}  // namespace
}  // namespace mezzotint::kernel::test
