#include "mezzotint/tensor/convolution.h"

#include <gtest/gtest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include "mezzotint/tensor/dispatch.h"
#include "tensor/operands.h"

// Both ways to convolve with codes, for every layout.
namespace mezzotint::tensor {
namespace {

using test::some_weight;

at::Tensor filled(const std::vector<int64_t>& shape, uint64_t seed, at::ScalarType type = at::kFloat) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return (some_weight(1, count, at::kFloat, seed) * 50).to(type).view(shape);
}

struct Case {
  std::vector<int64_t> weight, x;  ///< [O, C, kernel...], [B, C, size...]
  Geometry geometry;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {{256, 64, 2, 4}, {2, 64, 9, 10}, {{2, 4}, {2, 1}, {1, 2}, {1, 2}}},
      {{256, 512, 1, 1}, {1, 512, 3, 5}, {{1, 1}, {1, 1}, {0, 0}, {1, 1}}},
      {{256, 64, 2, 2, 2}, {1, 64, 3, 5, 6}, {{2, 2, 2}, {1, 2, 2}, {0, 1, 0}, {1, 1, 1}}},
      {{256, 128, 1, 2, 2}, {2, 128, 2, 6, 4}, {{1, 2, 2}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}}},  // a patch embedding
  };
  return all;
}

at::Tensor plain(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& bias, const Geometry& g) {
  return g.rank() == 2 ? at::conv2d(x, w, bias, g.stride, g.padding, g.dilation)
                       : at::conv3d(x, w, bias, g.stride, g.padding, g.dilation);
}

/// [positions, C * kernel] by slices of the padded input, in the order of the output's positions.
at::Tensor patch_rows(const at::Tensor& x, const Geometry& g) {
  std::vector<int64_t> padding;
  for (size_t d = g.rank(); d-- > 0;) padding.insert(padding.end(), 2, g.padding[d]);
  at::Tensor view = at::constant_pad_nd(x, padding);
  for (size_t d = 0; d < g.rank(); ++d) {
    const auto axis = static_cast<int64_t>(d) + 2;
    view = view.unfold(axis, g.dilation[d] * (g.kernel[d] - 1) + 1, g.stride[d]);
    view = view.slice(-1, 0, std::nullopt, g.dilation[d]);
  }
  std::vector<int64_t> order = {0};
  for (size_t d = 0; d < g.rank(); ++d) order.push_back(static_cast<int64_t>(d) + 2);
  order.push_back(1);
  for (size_t d = 0; d < g.rank(); ++d) order.push_back(static_cast<int64_t>(d + g.rank()) + 2);
  view = view.permute(order);
  return view.reshape({-1, view.size(static_cast<int64_t>(g.rank()) + 1) * g.kernel[0] * g.kernel[1] *
                               (g.rank() == 3 ? g.kernel[2] : 1)});
}

at::Tensor as_rows(const at::Tensor& y) {
  return y.movedim(1, -1).reshape({-1, y.size(1)});
}

class EveryConvolution : public testing::TestWithParam<std::string> {};

TEST_P(EveryConvolution, MeetsItsOperands) {
  for (const Case& c : cases())
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const bool full : {false, true}) {
        SCOPED_TRACE(std::string(c10::toString(type)) + ", kernel " + to_string(c.geometry.kernel) +
                     (full ? ", full" : ""));
        const at::Tensor source = filled(c.weight, 1) * 0.02, x = filled(c.x, 3, type), bias = filled({256}, 5, type);
        at::Tensor q = from_float(source, GetParam()), broken = test::with_broken_scale(q);
        if (full) q = test::full_precision(q), broken = test::full_precision(broken);
        const DispatchScope scope(DispatchScope::Fallback::error);
        const test::Operands o = test::operands(patch_rows(x, c.geometry), q);
        const double of_w = test::figure_of_weight(q, source);
        const at::Tensor floats =
            as_rows(plain(x.to(at::kDouble), source.to(at::kDouble), bias.to(at::kDouble), c.geometry));
        const at::Tensor added = bias.to(at::kDouble);
        for (const auto path : {ConvolutionPath::patches, ConvolutionPath::dequantize}) {
          const bool decodes = path == ConvolutionPath::dequantize;
          SCOPED_TRACE(decodes ? "dequantize" : "patches");
          const at::Tensor y = as_rows(convolve(x, q, bias, c.geometry, path)),
                           off = as_rows(convolve(x, broken, bias, c.geometry, path));
          ASSERT_EQ(y.scalar_type(), type);
          // libtorch's sums are float32 at best, of values in the input's dtype; in float16 it may sum in that.
          const at::Tensor values = dequantize(*quantized(q).stored(), type).flatten(1).to(at::kDouble);
          test::Exact exact =
              decodes ? test::product(patch_rows(x, c.geometry).to(at::kDouble), values.t(), false) : test::product(o);
          if (decodes) exact.bound = exact.bound * 4 + exact.y.abs().max() * test::rounding_of(type) * 4;
          exact.y = exact.y + added;
          exact.bound = exact.bound + 4 * test::kEps * (exact.y.abs() + added.abs());
          EXPECT_LE(test::worst(y, exact), 1);
          EXPECT_GT(test::worst(off, exact), 1) << "negative control";
          const double of_x = decodes ? 0.0 : test::relative(o.x, o.x_before);
          const double error = 1.25 * std::hypot(of_x, of_w) + 2 * test::rounding_of(type);
          EXPECT_LE(test::relative(y - added, floats - added), error);
          EXPECT_GT(test::relative(off - added, floats - added), error) << "negative control";
        }
        const at::Tensor y = plain(x, q, bias, c.geometry);
        EXPECT_TRUE(y.equal(convolve(x, q, bias, c.geometry, faster_convolution(x, q, c.geometry)))) << "the operation";
        EXPECT_TRUE(plain(x[0], q, {}, c.geometry).unsqueeze(0).equal(plain(x.slice(0, 0, 1), q, {}, c.geometry)));
      }
}

TEST_P(EveryConvolution, GivesTheInputsGradient) {
  for (const Case& c : cases()) {
    const at::Tensor source = filled(c.weight, 1) * 0.02, q = test::full_precision(from_float(source, GetParam()));
    const at::Tensor x = filled(c.x, 3).requires_grad_(), bias = filled({256}, 5).requires_grad_();
    for (const auto path : {ConvolutionPath::patches, ConvolutionPath::dequantize}) {
      const at::Tensor y = convolve(x, q, bias, c.geometry, path),
                       expected = plain(x.to(at::kDouble), dequantized(q, at::kFloat).to(at::kDouble),
                                        bias.to(at::kDouble), c.geometry);
      const at::Tensor g = filled(y.sizes().vec(), 9);
      const auto got = torch::autograd::grad({y}, {x, bias}, {g}),
                 wanted = torch::autograd::grad({expected}, {x, bias}, {g.to(at::kDouble)});
      EXPECT_LT(test::relative(got[0], wanted[0]), 1e-5);
      EXPECT_LT(test::relative(got[1], wanted[1]), 1e-5);
      EXPECT_GT(test::relative(got[0] * 1.25, wanted[0]), 1e-5);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Operations, EveryConvolution, testing::ValuesIn(test::stored_formats()), test::name_of);

TEST(Convolution, ManyPartsAreOneResult) {
  // 3.4 MB of patches a frame, 54 MB in all: several parts, cut within frames and between them.
  const at::Tensor q = from_float(filled({128, 32, 3, 3, 3}, 1), "int8_row"), x = filled({1, 32, 18, 34, 34}, 3);
  const Geometry g{{3, 3, 3}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
  const at::Tensor y = convolve(x, q, {}, g, ConvolutionPath::patches);
  const at::Tensor rows = at::linear(patch_rows(x, g), from_float(filled({128, 32 * 27}, 1), "int8_row"));
  EXPECT_TRUE(as_rows(y).equal(rows));
}

TEST(Convolution, EmptyBatchesAndTooSmallInputs) {
  const at::Tensor q = from_float(filled({128, 32, 2, 2}, 1), "int8_row");
  EXPECT_EQ(at::conv2d(at::empty({0, 32, 5, 5}), q).sizes(), at::IntArrayRef({0, 128, 4, 4}));
  EXPECT_THROW(at::conv2d(at::empty({1, 32, 1, 5}), q), c10::Error);
  EXPECT_THROW(at::conv2d(at::empty({1, 31, 5, 5}), q), c10::Error);
}

}  // namespace
}  // namespace mezzotint::tensor
