#pragma once
#include <bit>
#include <cmath>

#include "convert/interruption.h"

/// What the tests of merging adapters share: adapter files written by hand, and merges in double that know nothing of
/// the code under test.
namespace mezzotint::convert {

using Matrix = std::vector<double>;

/// Values of a plain tensor, by the definition of its dtype.
inline Matrix plain_values(const test::RawTensor& tensor) {
  Matrix values(element_count(tensor.shape).value());
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == "F32") {
      float x = 0;
      std::memcpy(&x, tensor.bytes.data() + 4 * i, 4);
      values[i] = x;
      continue;
    }
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.bytes.data() + 2 * i, 2);
    if (tensor.dtype == "BF16") {
      values[i] = std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
      continue;
    }
    EXPECT_EQ(tensor.dtype, "F16");
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    values[i] = (bits & 0x8000) != 0 ? -size : size;
  }
  return values;
}

inline std::vector<float> normal_floats(std::mt19937_64& rng, size_t count, double size = 1) {
  std::normal_distribution<double> normal(0, size);
  std::vector<float> values(count);
  for (float& x : values) x = static_cast<float>(normal(rng));
  return values;
}

/// A LoRA of one layer.
struct Lora {
  int64_t rows = 0, cols = 0, rank = 0;
  std::vector<float> up, down;
  std::optional<double> alpha;

  static Lora random(std::mt19937_64& rng, int64_t rows, int64_t cols, int64_t rank, double size = 0.05) {
    return {rows,
            cols,
            rank,
            normal_floats(rng, static_cast<size_t>(rows * rank), size),
            normal_floats(rng, static_cast<size_t>(rank * cols), size),
            std::nullopt};
  }
  /// strength * alpha / rank * up * down
  Matrix delta(double strength = 1) const {
    const double scale = strength * (alpha ? *alpha / static_cast<double>(rank) : 1);
    Matrix out(static_cast<size_t>(rows * cols));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < rank; ++k) {
        const double u = scale * static_cast<double>(up[static_cast<size_t>(r * rank + k)]);
        for (int64_t c = 0; c < cols; ++c)
          out[static_cast<size_t>(r * cols + c)] += u * static_cast<double>(down[static_cast<size_t>(k * cols + c)]);
      }
    return out;
  }
  void write(test::RawFile& file, const std::string& target, Shape kernel = {}) const {
    Shape a{rank, cols}, b{rows, rank};
    for (const int64_t k : kernel) {
      a[1] /= k;
      a.push_back(k);
      b.push_back(1);
    }
    file.tensors.emplace_back(target + ".lora_up.weight", test::f32_tensor(b, up));
    file.tensors.emplace_back(target + ".lora_down.weight", test::f32_tensor(a, down));
    if (alpha) file.tensors.emplace_back(target + ".alpha", test::f32_tensor({}, {static_cast<float>(*alpha)}));
  }
};

/// Half a step of a plain dtype at x, and what float32 arithmetic on values up to `largest` adds.
inline double plain_step(const std::string& dtype, double x, double largest) {
  const double half = dtype == "BF16" ? 0x1p-8 : dtype == "F16" ? 0x1p-11 : 0x1p-24;
  return std::abs(x) * half + (dtype == "F16" ? 0x1p-25 : 0) + largest * 1e-6;
}

class Merging : public Resume {
 protected:
  /// Writes an adapter file and returns it as an option.
  MergeLora lora_file(const test::RawFile& file, double strength = 1, const std::string& name = "lora") {
    const auto path = adapters_ / (name + ".safetensors");
    test::write_raw(path, file);
    return {path.string(), strength};
  }
  static ConvertOptions merging(std::vector<MergeLora> loras) {
    ConvertOptions options;
    options.to = "";
    options.merge_loras = std::move(loras);
    return options;
  }
  static void expect_merged(const test::RawTensor& before, const test::RawTensor& after, const Matrix& delta) {
    ASSERT_EQ(before.dtype, after.dtype);
    ASSERT_EQ(before.shape, after.shape);
    const Matrix w = plain_values(before), got = plain_values(after);
    ASSERT_EQ(w.size(), delta.size());
    double largest = 0;
    for (size_t i = 0; i < w.size(); ++i) largest = std::max({largest, std::abs(w[i]), std::abs(delta[i])});
    size_t changed = 0, wrong = 0;
    for (size_t i = 0; i < w.size(); ++i) {
      const double wanted = w[i] + delta[i];
      wrong += !(std::abs(got[i] - wanted) <= plain_step(before.dtype, wanted, largest));
      changed += std::abs(got[i] - w[i]) > plain_step(before.dtype, wanted, largest);
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_GT(changed, w.size() / 4) << "the bound would not notice a missing delta";
  }

  test::TemporaryFolder adapters_;
};

}  // namespace mezzotint::convert
