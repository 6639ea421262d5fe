// Convolutions with codes in both ways, beside libtorch's with a plain weight: what faster_convolution() rests on.
//   bench_tensor [FORMAT...]      default: int8_row and float8_e4m3fn
#include <fmt/format.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "mezzotint/tensor/convolution.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace {

using namespace mezzotint::tensor;

struct Case {
  const char* what;
  std::vector<int64_t> weight, x;  // [O, C, kernel...], [1, C, size...]
  int64_t stride = 1, padding = 0;
  bool as_kernel = false;  // stride = kernel
};

const Case kCases[] = {
    {"patch embedding, Wan 14B, 1 frame", {5120, 16, 1, 2, 2}, {1, 16, 1, 60, 104}, 1, 0, true},
    {"patch embedding, Wan 5B, 2 frames", {3072, 48, 1, 2, 2}, {1, 48, 2, 44, 80}, 1, 0, true},
    {"patch embedding, 1 small frame", {3072, 48, 1, 2, 2}, {1, 48, 1, 16, 16}, 1, 0, true},
    {"VAE 3x3x3, 96 channels", {96, 96, 3, 3, 3}, {1, 96, 2, 32, 32}, 1, 1},
    {"VAE 3x3x3, 384 channels", {384, 384, 3, 3, 3}, {1, 384, 1, 30, 52}, 1, 1},
    {"VAE 3x3x3, 384 channels, small", {384, 384, 3, 3, 3}, {1, 384, 1, 8, 8}, 1, 1},
    {"UNet 3x3, 320 channels", {320, 320, 3, 3}, {1, 320, 64, 64}, 1, 1},
    {"UNet 3x3, 1280 channels", {1280, 1280, 3, 3}, {1, 1280, 16, 16}, 1, 1},
    {"UNet 3x3, 1280 channels, small", {1280, 1280, 3, 3}, {1, 1280, 4, 4}, 1, 1},
    {"UNet 1x1, 1280 channels", {1280, 1280, 1, 1}, {1, 1280, 32, 32}, 1, 0},
};

template <class F>
double milliseconds(F&& f) {
  f();
  double best = 1e30;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 3 || (i < 50 && std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(100)); ++i) {
    const auto from = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count());
  }
  return best;
}

double relative(const at::Tensor& got, const at::Tensor& expected) {
  return ((got.to(at::kFloat) - expected).norm() / expected.norm()).item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> formats(argv + 1, argv + argc);
  // names a format: one that multiplies integers, one that does not
  if (formats.empty()) formats = {"int8_row", "float8_e4m3fn"};
  const torch::NoGradGuard no_grad;
  fmt::print("{:<38} {:<14} {:<9} {:>9} {:>9} {:>9} {:>8} {:>9}\n", "milliseconds", "format", "inputs", "patches",
             "dequant", "plain", "faster", "error");
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int wrong = 0;
  for (const Case& c : kCases)
    for (const std::string& format : formats)
      for (const auto type : {at::kBFloat16, at::kFloat}) {
        const at::Tensor weight = (at::randn(c.weight) * 0.05).to(type), x = at::randn(c.x).to(type);
        at::Tensor q;
        try {
          q = from_float(weight, format);
        } catch (const std::exception&) {
          continue;
        }
        const size_t rank = c.weight.size() - 2;
        Geometry g{std::vector<int64_t>(c.weight.begin() + 2, c.weight.end()), std::vector<int64_t>(rank, c.stride),
                   std::vector<int64_t>(rank, c.padding), std::vector<int64_t>(rank, 1)};
        if (c.as_kernel) g.stride = g.kernel;
        const auto plain = [&](const at::Tensor& in, const at::Tensor& w) {
          return rank == 2 ? at::conv2d(in, w, {}, g.stride, g.padding) : at::conv3d(in, w, {}, g.stride, g.padding);
        };
        const at::Tensor expected = plain(x.to(at::kFloat), weight.to(at::kFloat));
        const double error = relative(convolve(x, q, {}, g, ConvolutionPath::patches), expected);
        wrong += error < 0.1 && relative(convolve(x, q, {}, g, ConvolutionPath::dequantize), expected) < 0.1 ? 0 : 1;
        const double by_patches = milliseconds([&] { convolve(x, q, {}, g, ConvolutionPath::patches); }),
                     by_values = milliseconds([&] { convolve(x, q, {}, g, ConvolutionPath::dequantize); }),
                     with_plain = milliseconds([&] { plain(x, weight); });
        const bool patches = faster_convolution(x, q, g) == ConvolutionPath::patches;
        fmt::print("{:<38} {:<14} {:<9} {:>9.2f} {:>9.2f} {:>9.2f} {:>8} {:>9.4f}\n", c.what, format,
                   c10::toString(type), by_patches, by_values, with_plain, patches ? "patches" : "dequant", error);
      }
  if (wrong > 0) fmt::print("{} answers are wrong\n", wrong);
  return wrong > 0 ? 1 : 0;
}
