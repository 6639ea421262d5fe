#include "mezzotint/kernel/hadamard.h"

#include <random>

#include "kernel/matrix.h"

namespace mezzotint::kernel::test {
namespace {

/// Closed forms of the entries' signs.
int convrot_sign(int64_t i, int64_t j, int64_t group) {
  int sign = 1;
  for (int64_t digit = 1; digit < group; digit *= 4)
    if (i / digit % 4 + j / digit % 4 == 3) sign = -sign;
  return sign;
}
int sylvester_sign(int64_t i, int64_t j, int64_t) {
  return std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1;
}

struct Kind {
  const char* name;
  int (*sign)(int64_t, int64_t, int64_t);
  std::vector<int64_t> groups;
};
const Kind kKinds[] = {{"convrot", convrot_sign, {4, 16, 64, 256, 1024, 4096}},
                       {"sylvester", sylvester_sign, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}}};

void rotate(const Kind& kind, float* x, int64_t count, int64_t group, int64_t inner = 1) {
  if (kind.sign == convrot_sign) return rotate_convrot(x, count, group);
  rotate_sylvester(x, count, group, inner);
}

/// The definition: out[a, i, b] = sum_j sign(i, j) x[a, j, b] / sqrt(group), in double. `magnitude` is the same sum of
/// |x|, which scales rounding errors.
struct Expected {
  std::vector<double> value, magnitude;
};
Expected by_definition(const Kind& kind, const std::vector<float>& x, int64_t group, int64_t inner) {
  Expected out{std::vector<double>(x.size()), std::vector<double>(x.size())};
  const double root = std::sqrt(static_cast<double>(group));
  const auto count = static_cast<int64_t>(x.size());
  for (int64_t a = 0; a < count; a += group * inner)
    for (int64_t i = 0; i < group; ++i)
      for (int64_t b = 0; b < inner; ++b) {
        double sum = 0, magnitude = 0;
        for (int64_t j = 0; j < group; ++j) {
          const double v = static_cast<double>(x[static_cast<size_t>(a + j * inner + b)]) / root;
          sum += kind.sign(i, j, group) * v;
          magnitude += std::abs(v);
        }
        out.value[static_cast<size_t>(a + i * inner + b)] = sum;
        out.magnitude[static_cast<size_t>(a + i * inner + b)] = magnitude;
      }
  return out;
}

/// Runs at every level; all must give the same bits.
std::vector<float> rotated(const Kind& kind, const std::vector<float>& x, int64_t group, int64_t inner = 1) {
  const auto count = static_cast<int64_t>(x.size());
  Matrix result = same_at_every_level(Matrix(1, count, 4, 0, 4), [&](Matrix& out) {
    std::memcpy(out.data(), x.data(), x.size() * 4);
    rotate(kind, reinterpret_cast<float*>(out.data()), count, group, inner);
  });
  std::vector<float> values(x.size());
  std::memcpy(values.data(), result.data(), x.size() * 4);
  return values;
}

std::vector<float> normal(int64_t count) {
  auto rng = test_rng();
  std::normal_distribution<float> draw(0, 0.02f);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = draw(rng);
  return x;
}

/// The largest error over its bound: one rounding of the scale (odd powers of two) and two of every radix-4 step.
double worst(const Expected& expected, const std::vector<float>& got, int64_t group) {
  const double bound = (2 * std::ceil(std::log2(static_cast<double>(group)) / 2) + 2) * 0x1p-24;
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(got[i] - expected.value[i]) / (bound * expected.magnitude[i] + 0x1p-149));
  return worst;
}

TEST(Hadamard, MatchesTheClosedFormAndUndoesItself) {
  for (const Kind& kind : kKinds)
    for (const int64_t group : kind.groups)
      for (const int64_t groups : {1, 2, 5}) {
        if (group > 1024 && groups > 1) continue;
        const std::vector<float> x = normal(group * groups);
        const Expected expected = by_definition(kind, x, group, 1);
        std::vector<float> y = rotated(kind, x, group);
        EXPECT_LE(worst(expected, y, group), 1) << kind.name << " " << group;
        const std::vector<float> back = rotated(kind, y, group);
        EXPECT_LE(worst(by_definition(kind, y, group, 1), back, group), 1) << kind.name << " " << group;
        // One wrong sign in one sum is noticed.
        if (group < 4) continue;
        y[static_cast<size_t>(group / 2)] -= 2 * x[0] / std::sqrt(static_cast<float>(group));
        EXPECT_GT(worst(expected, y, group), 1) << kind.name << " " << group;
      }
}

TEST(Hadamard, IsExactOnSmallIntegersOfPowersOf4) {
  auto rng = test_rng();
  for (const Kind& kind : kKinds)
    for (const int64_t group : kKinds[0].groups) {
      std::vector<float> x(static_cast<size_t>(group * 3));
      for (float& v : x) v = static_cast<float>(static_cast<int>(rng() % 257) - 128);
      const Expected expected = by_definition(kind, x, group, 1);
      const std::vector<float> y = rotated(kind, x, group);
      for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(static_cast<double>(y[i]), expected.value[i]);
      EXPECT_EQ(rotated(kind, y, group), x);
    }
}

TEST(Hadamard, SylvesterOverColumns) {
  for (const int64_t group : {1, 2, 8, 16, 32, 256})
    for (const int64_t inner : {1, 2, 3, 5, 8, 16, 17, 40}) {
      const std::vector<float> x = normal(group * inner * 2);
      EXPECT_LE(worst(by_definition(kKinds[1], x, group, inner), rotated(kKinds[1], x, group, inner), group), 1)
          << group << " " << inner;
    }
}

TEST(Hadamard, SplitsAndUnusualValues) {
  const std::vector<float> x = normal(256 * 7);
  const std::vector<float> whole = rotated(kKinds[0], x, 256);
  std::vector<float> parts = x;
  for (int64_t g = 0; g < 7; ++g) rotate_convrot(parts.data() + g * 256, 256, 256);
  EXPECT_EQ(parts, whole);
  // Values at the top of the range rotate without overflow where the result fits; what is not finite stays in its
  // group.
  std::vector<float> big(512, 0.0f);
  for (size_t i = 0; i < 256; ++i) big[i] = i % 2 != 0 ? 3e38f : -3e38f;
  for (const float v : rotated(kKinds[0], big, 256)) EXPECT_TRUE(std::isfinite(v));
  big[3] = std::numeric_limits<float>::infinity();
  rotate_convrot(big.data(), 512, 256);
  for (size_t i = 0; i < 512; ++i) EXPECT_EQ(std::isfinite(big[i]), i >= 256);
}

TEST(Hadamard, GroupSizes) {
  for (const int64_t group : kKinds[0].groups) EXPECT_TRUE(is_convrot_group(group));
  for (const int64_t group : {-4, 0, 1, 2, 3, 8, 12, 20, 32, 80, 128, 512, 2048, 8192, 16384})
    EXPECT_FALSE(is_convrot_group(group)) << group;
}

}  // namespace
}  // namespace mezzotint::kernel::test
