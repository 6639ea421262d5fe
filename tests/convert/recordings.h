#pragma once
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/checkpoint_file.h"

/// Calibration files made by hand: sums in double, bins by frexp, nothing of the code under test.
namespace mezzotint::test {

/// Inputs of one layer, [tokens, cols].
struct Inputs {
  size_t tokens = 0, cols = 0;
  std::vector<float> x;
  float at(size_t t, size_t j) const { return x[t * cols + j]; }
};

/// Correlated channels of different means and widths; some zeros.
inline Inputs make_inputs(std::mt19937_64& rng, size_t tokens, size_t cols, double width = 1) {
  std::normal_distribution<double> normal;
  Inputs inputs{tokens, cols, std::vector<float>(tokens * cols)};
  for (size_t t = 0; t < tokens; ++t) {
    const double common = normal(rng);
    for (size_t j = 0; j < cols; ++j) {
      const double spread = 0.25 + static_cast<double>(j % 5);
      const double value = width * (spread * (normal(rng) + common) + 0.5 * static_cast<double>(j % 3));
      inputs.x[t * cols + j] = (t + j) % 11 == 0 ? 0.0f : static_cast<float>(value);
    }
  }
  return inputs;
}

inline size_t histogram_bin(float value) {
  if (std::abs(value) < std::ldexp(1.0f, -40)) return 0;
  if (std::abs(value) >= std::ldexp(1.0f, 24)) return 513;
  int exponent = 0;
  const float mantissa = std::frexp(std::abs(value), &exponent);  // [0.5, 1)
  return static_cast<size_t>(1 + 8 * (exponent - 1 + 40) + static_cast<int>((2 * mantissa - 1) * 8));
}

/// Adds the tensors of one layer.
inline void add_recording(RawFile& file, const std::string& layer, const Inputs& inputs, bool gram) {
  const size_t cols = inputs.cols;
  std::vector<float> amax(cols, 0), means(cols), moments(cols), triangle;
  std::vector<int64_t> histogram(514, 0);
  const auto tokens = static_cast<double>(inputs.tokens);
  for (size_t j = 0; j < cols; ++j) {
    double sum = 0, square = 0;
    for (size_t t = 0; t < inputs.tokens; ++t) {
      const float x = inputs.at(t, j);
      amax[j] = std::max(amax[j], std::abs(x));
      sum += double{x};
      square += double{x} * double{x};
      ++histogram[histogram_bin(x)];
    }
    means[j] = static_cast<float>(sum / tokens);
    moments[j] = static_cast<float>(square / tokens);
  }
  const auto k = static_cast<int64_t>(cols);
  file.tensors.emplace_back(layer + ".amax", f32_tensor({}, {*std::max_element(amax.begin(), amax.end())}));
  file.tensors.emplace_back(layer + ".channel_amax", f32_tensor({k}, amax));
  file.tensors.emplace_back(layer + ".channel_mean", f32_tensor({k}, means));
  file.tensors.emplace_back(layer + ".second_moment", f32_tensor({k}, moments));
  file.tensors.emplace_back(layer + ".histogram", RawTensor{"I64", {514}, raw_bytes(histogram)});
  file.tensors.emplace_back(layer + ".tokens",
                            RawTensor{"I64", {}, raw_bytes(std::vector<int64_t>{static_cast<int64_t>(inputs.tokens)})});
  if (!gram) return;
  for (size_t i = 0; i < cols; ++i)
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t t = 0; t < inputs.tokens; ++t) sum += double{inputs.at(t, i)} * double{inputs.at(t, j)};
      triangle.push_back(static_cast<float>(sum / tokens));
    }
  file.tensors.emplace_back(layer + ".gram", f32_tensor({k * (k + 1) / 2}, triangle));
}

inline RawFile recording(const std::string& layer, const Inputs& inputs, bool gram = false) {
  RawFile file;
  file.metadata["mezzotint_calibration"] = "1";
  add_recording(file, layer, inputs, gram);
  return file;
}

}  // namespace mezzotint::test
