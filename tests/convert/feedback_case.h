#pragma once
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "mezzotint/formats/driver.h"

/// A weight with chosen scales, and sums from the definition that rounding with feedback is held against.
namespace mezzotint::convert {

inline std::vector<float> normal(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = distribution(generator);
  return x;
}

/// X'X / T of inputs whose neighbours are alike: 0.9^|i - j|.
inline std::vector<float> correlated_gram(int64_t n) {
  std::vector<float> gram(static_cast<size_t>(n * n)), powers;
  for (int64_t k = 0; k < n; ++k) powers.push_back(static_cast<float>(std::pow(0.9, static_cast<double>(k))));
  for (int64_t a = 0; a < n; ++a)
    for (int64_t b = 0; b < n; ++b) gram[static_cast<size_t>(a * n + b)] = powers[static_cast<size_t>(std::abs(a - b))];
  return gram;
}

struct Case {
  formats::Layout layout;
  formats::Parameters parameters;
  std::vector<float> w;

  Case(const std::string& format, int64_t rows, int64_t cols, uint32_t seed = 1, int effort = 0) {
    const formats::Selection selection = formats::select_format(format);
    layout = selection.format->describe({{rows, cols}, formats::LayerKind::linear}, selection.options).layout.value();
    w = normal(rows * cols, seed);
    parameters = formats::choose_parameters(layout, tile(), {.effort = effort}, 1);
    if (layout.transformed) layout.format->transform(layout, w.data(), rows, false);  // from here on as codes see it
  }
  formats::Tile tile(const float* values = nullptr) const {
    return {values != nullptr ? values : w.data(), DType::f32, 0, layout.rows, 0, layout.cols, layout.cols};
  }
  /// What the file would hold for these values, decoded.
  std::vector<float> stored(const std::vector<float>& values) const {
    formats::Quantized q{layout, parameters};
    q.parameters.tensors[0].resize(formats::codes_bytes(layout));
    layout.format->encode(layout, parameters, tile(values.data()), {}, q.parameters.tensors[0].data());
    std::vector<float> out(values.size());
    layout.format->decode(layout, q.parameters, 0, layout.rows, 0, layout.cols, q.parameters.tensors[0].data(),
                          out.data(), layout.cols);
    return out;
  }
};

/// e H e' of every row in double, H = gram / mean diagonal + damping I. With pointers: most of the tests' time under
/// sanitizers was here.
inline std::vector<double> row_energies(const Case& c, const std::vector<float>& q, const std::vector<float>& gram,
                                        double damping) {
  const int64_t n = c.layout.cols;
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(gram[static_cast<size_t>(i * n + i)]);
  mean /= static_cast<double>(n);
  std::vector<double> energies;
  for (int64_t r = 0; r < c.layout.rows; ++r) {
    double sum = 0;
    std::vector<double> e(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(r * n + i);
      e[static_cast<size_t>(i)] = static_cast<double>(q[at]) - static_cast<double>(c.w[at]);
    }
    const double* x = e.data();
    for (int64_t i = 0; i < n; ++i) {
      const float* h = gram.data() + i * n;
      double row = 0;
      for (int64_t j = 0; j < n; ++j) row += static_cast<double>(h[j]) * x[j];
      sum += x[i] * (row / mean + damping * x[i]);
    }
    energies.push_back(sum);
  }
  return energies;
}

/// Their sum.
inline double energy(const Case& c, const std::vector<float>& q, const std::vector<float>& gram, double damping) {
  const std::vector<double> energies = row_energies(c, q, gram, damping);
  return std::accumulate(energies.begin(), energies.end(), 0.0);
}

inline double share_different(const std::vector<float>& a, const std::vector<float>& b) {
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += std::abs(a[i] - b[i]) > 1e-6f;
  return static_cast<double>(count) / static_cast<double>(a.size());
}

inline std::vector<std::string> quantized_formats() {
  std::vector<std::string> names;
  for (const formats::Format* format : formats::all_formats())
    if (format->quantized && format->writable) names.emplace_back(format->name);
  for (const char* more : {"int8_row", "int8_convrot", "w6a8"}) names.emplace_back(more);  // aliases with options
  return names;
}

}  // namespace mezzotint::convert
