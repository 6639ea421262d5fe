#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/dtype.h"
#include "mezzotint/base/fp16.h"

/// The shared list of inputs that break quantizers.
namespace mezzotint::test {

/// Matrices [rows, cols]: single elements, single rows and columns, sizes that no vector width or block divides, sizes
/// that they do.
inline const std::vector<Shape>& awkward_shapes() {
  static const std::vector<Shape> shapes = {{1, 1},   {3, 17},  {217, 256}, {256, 512}, {1, 300},
                                            {300, 1}, {64, 33}, {14, 21},   {128, 128}};
  return shapes;
}

struct AwkwardInput {
  std::string name;
  bool finite = true;    ///< no inf or NaN in it
  bool ordinary = true;  ///< values that any format keeps to a few percent: a scale broken by 25% must show
  void (*fill)(std::mt19937_64& rng, int64_t rows, int64_t cols, std::vector<float>& values);
};

namespace detail {
/// Draws from a distribution, made once for the whole program: drawing anew took most of the time of the tests that
/// want millions. Their number is prime, so that where a matrix is larger, no row of it comes again.
template <class Distribution>
std::vector<float> draws(Distribution distribution) {
  std::mt19937_64 rng(1);
  std::vector<float> table(262147);
  for (float& x : table) x = static_cast<float>(distribution(rng));
  return table;
}
/// Table values from a random place on, times the factor.
inline void scaled(const std::vector<float>& table, std::mt19937_64& rng, std::vector<float>& values, float factor) {
  size_t at = rng() % table.size();
  for (float& x : values) {
    x = table[at] * factor;
    if (++at == table.size()) at = 0;
  }
}
inline void normals(std::mt19937_64& rng, std::vector<float>& values, float factor) {
  static const std::vector<float> table = draws(std::normal_distribution<double>());
  scaled(table, rng, values, factor);
}
inline void heavy_tailed(std::mt19937_64& rng, std::vector<float>& values, float factor) {
  static const std::vector<float> table = draws(std::student_t_distribution<double>(2.5));
  scaled(table, rng, values, factor);
}
}  // namespace detail

inline const std::vector<AwkwardInput>& awkward_inputs() {
  using Rng = std::mt19937_64;
  using Values = std::vector<float>;
  static const std::vector<AwkwardInput> inputs = {
      {"normal", true, true, [](Rng& rng, int64_t, int64_t, Values& v) { detail::normals(rng, v, 0.02f); }},
      {"heavy-tailed", true, true, [](Rng& rng, int64_t, int64_t, Values& v) { detail::heavy_tailed(rng, v, 0.02f); }},
      {"all equal", true, true, [](Rng&, int64_t, int64_t, Values& v) { v.assign(v.size(), -0.3125f); }},
      {"one outlier", true, true,
       [](Rng& rng, int64_t, int64_t, Values& v) {
         detail::normals(rng, v, 1.0f);
         v[v.size() / 2] = 1e4f;
       }},
      {"zeros", true, false, [](Rng&, int64_t, int64_t, Values& v) { v.assign(v.size(), 0.0f); }},
      {"signed zeros", true, false,
       [](Rng& rng, int64_t, int64_t, Values& v) {
         for (float& x : v) x = (rng() & 1) != 0 ? -0.0f : 0.0f;
       }},
      {"zero rows", true, false,
       [](Rng& rng, int64_t, int64_t cols, Values& v) {
         detail::normals(rng, v, 0.5f);
         for (size_t i = 0; i < v.size(); ++i)
           if ((static_cast<int64_t>(i) / cols) % 3 == 0) v[i] = 0.0f;
       }},
      {"outlier columns", true, true,
       [](Rng& rng, int64_t, int64_t cols, Values& v) {
         detail::normals(rng, v, 1.0f);
         for (size_t i = 0; i < v.size(); ++i) v[i] *= static_cast<int64_t>(i) % cols % 29 == 5 ? 3.0f : 0.05f;
       }},
      {"tiny", true, false, [](Rng& rng, int64_t, int64_t, Values& v) { detail::normals(rng, v, 1e-33f); }},
      {"denormal", true, false, [](Rng& rng, int64_t, int64_t, Values& v) { detail::normals(rng, v, 1e-40f); }},
      {"huge", true, false, [](Rng& rng, int64_t, int64_t, Values& v) { detail::normals(rng, v, 3e37f); }},
      {"wide range", true, false,
       [](Rng& rng, int64_t, int64_t, Values& v) {
         std::uniform_real_distribution<double> exponent(-30, 10);
         detail::normals(rng, v, 1.0f);
         for (float& x : v) x *= static_cast<float>(std::exp2(exponent(rng)));
       }},
      {"inf", false, false,
       [](Rng& rng, int64_t, int64_t, Values& v) {
         detail::normals(rng, v, 0.02f);
         v[0] = -INFINITY;
         v[v.size() / 2] = INFINITY;
       }},
      {"NaN", false, false,
       [](Rng& rng, int64_t, int64_t, Values& v) {
         detail::normals(rng, v, 0.02f);
         v[v.size() - 1] = NAN;
         v[v.size() / 3] = -NAN;
       }},
      {"nothing finite", false, false, [](Rng&, int64_t, int64_t, Values& v) { v.assign(v.size(), NAN); }},
  };
  return inputs;
}

inline std::vector<float> make_values(const AwkwardInput& input, std::mt19937_64& rng, int64_t rows, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  input.fill(rng, rows, cols, values);
  return values;
}

/// Stored bytes of the values in a source dtype (F32, BF16 or F16), and the float32 values that those bytes mean.
struct SourceBytes {
  DType dtype = DType::f32;
  std::vector<std::byte> bytes;
  std::vector<float> values;
};
inline SourceBytes as_source(const std::vector<float>& values, DType dtype) {
  SourceBytes source{dtype, {}, values};
  const size_t size = dtype == DType::f32 ? 4 : 2;
  source.bytes.resize(values.size() * size);
  if (dtype == DType::f32) {
    if (!values.empty()) std::memcpy(source.bytes.data(), values.data(), source.bytes.size());
    return source;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const auto code = static_cast<uint16_t>(dtype == DType::bf16 ? Bf16::encode(values[i]) : Fp16::encode(values[i]));
    std::memcpy(source.bytes.data() + i * size, &code, size);
    source.values[i] = dtype == DType::bf16 ? Bf16::decode(code) : Fp16::decode(code);
  }
  return source;
}

}  // namespace mezzotint::test
