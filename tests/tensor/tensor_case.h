#pragma once
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cctype>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::test {

/// Formats that can be written, with options that change their layout.
inline std::vector<std::string> stored_formats() {
  std::vector<std::string> names;
  for (const formats::Format* format : formats::all_formats())
    if (format->quantized && format->writable) names.emplace_back(format->name);
  return names;
}

/// What gtest calls a test of such a format.
inline std::string name_of(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

/// A weight that every format takes: K and N divide by 256.
inline at::Tensor some_weight(int64_t rows = 256, int64_t cols = 512, at::ScalarType type = at::kBFloat16,
                              uint64_t seed = 1) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return (torch::randn({rows, cols}, generator) * 0.02).to(type);
}

inline double relative(const at::Tensor& got, const at::Tensor& expected) {
  return ((got.to(at::kDouble) - expected.to(at::kDouble)).norm() / expected.to(at::kDouble).norm()).item<double>();
}

/// Both quantized, with the same stored bytes, wherever they lie.
inline bool same_codes(const at::Tensor& a, const at::Tensor& b) {
  const auto &left = tensor::quantized(a).stored()->tensors, &right = tensor::quantized(b).stored()->tensors;
  for (size_t i = 0; i < left.size() && i < right.size(); ++i)
    if (!left[i].cpu().view({-1}).view(at::kByte).equal(right[i].cpu().view({-1}).view(at::kByte))) return false;
  return left.size() == right.size();
}

}  // namespace mezzotint::test
