#include <gtest/gtest.h>
#include <torch/types.h>

#include "mezzotint/base/error.h"
#include "mezzotint/tensor/dispatch.h"
#include "tensor/operands.h"

// Every (operation, layout) pair. Sums: within the kernels' derived bounds of the float64 result on the decoded,
// already quantized operands. Quantization, apart from that: the result's relative Frobenius error against float
// operands, as the format's row lets expect it. A stored scale that is off by a quarter fails both.
namespace mezzotint::tensor {
namespace {

using test::some_weight;

at::Tensor some_input(int64_t rows, int64_t cols, at::ScalarType type, uint64_t seed = 3) {
  return some_weight(rows, cols, type, seed) * 50;
}
at::Tensor some_bias(int64_t n, at::ScalarType type) {
  return some_input(1, n, type, 5).view({n});
}

/// y[M, N] = alpha x[M, K] q[N, K]^T + beta * (the bias, or a matrix). An operation brings x and the result to its own
/// ranks.
struct Operation {
  std::string name;
  at::Tensor (*run)(const at::Tensor& x, const at::Tensor& q);
  double alpha = 1, beta = 0;
  int64_t rows = 16;  ///< of x that it takes
};

const Operation kOperations[] = {
    {"linear", [](const at::Tensor& x, const at::Tensor& q) { return at::linear(x, q); }},
    {"linear, bias",
     [](const at::Tensor& x, const at::Tensor& q) { return at::linear(x, q, some_bias(q.size(0), x.scalar_type())); },
     1, 1},
    {"linear, 1-D", [](const at::Tensor& x, const at::Tensor& q) { return at::linear(x[0], q).unsqueeze(0); }, 1, 0, 1},
    {"linear, 3-D",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::linear(x.view({2, 8, x.size(1)}), q).view({16, q.size(0)});
     }},
    {"linear, 4-D",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::linear(x.view({2, 2, 4, x.size(1)}), q).view({16, q.size(0)});
     }},
    {"linear, rows that do not follow each other",
     [](const at::Tensor& x, const at::Tensor& q) { return at::linear(x.t().contiguous().t(), q); }},
    {"mm", [](const at::Tensor& x, const at::Tensor& q) { return at::mm(x, q.t()); }},
    {"mm, weight first", [](const at::Tensor& x, const at::Tensor& q) { return at::mm(q, x.t()).t(); }},
    {"matmul", [](const at::Tensor& x, const at::Tensor& q) { return at::matmul(x, q.t()); }},
    {"matmul, 3-D",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::matmul(x.view({4, 4, x.size(1)}), q.t()).view({16, q.size(0)});
     }},
    {"matmul, 4-D",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::matmul(x.view({4, 2, 2, x.size(1)}), q.transpose(0, 1)).view({16, q.size(0)});
     }},
    {"matmul, weight first",
     [](const at::Tensor& x, const at::Tensor& q) { return at::matmul(q, x.transpose(0, 1)).t(); }},
    {"matmul, weight before a batch",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::matmul(q, x.view({4, 4, x.size(1)}).transpose(1, 2)).transpose(1, 2).reshape({16, q.size(0)});
     }},
    {"matmul, with a vector", [](const at::Tensor& x, const at::Tensor& q) { return at::matmul(q, x[0]).unsqueeze(0); },
     1, 0, 1},
    {"mv", [](const at::Tensor& x, const at::Tensor& q) { return at::mv(q, x[0]).unsqueeze(0); }, 1, 0, 1},
    {"addmm, a bias",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::addmm(some_bias(q.size(0), x.scalar_type()), x, q.t());
     },
     1, 1},
    {"addmm, alpha and beta",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::addmm(some_bias(q.size(0), x.scalar_type()), x, q.t(), 0.5, 2);
     },
     2, 0.5},
    {"addmm, a matrix",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::addmm(some_bias(q.size(0), x.scalar_type()).expand({16, -1}), x, q.t(), -1, 1);
     },
     1, -1},
    {"addmm, beta 0 hides NaN",
     [](const at::Tensor& x, const at::Tensor& q) {
       return at::addmm(at::full({q.size(0)}, NAN, x.options()), x, q.t(), 0, 0.25);
     },
     0.25, 0},
};

test::Exact expected(const Operation& op, const test::Exact& product, at::ScalarType type) {
  const at::Tensor sums = op.alpha * product.y.slice(0, 0, op.rows),
                   added = op.beta * some_bias(sums.size(1), type).to(at::kDouble);
  return {sums + added,
          std::abs(op.alpha) * product.bound.slice(0, 0, op.rows) + 4 * test::kEps * (sums.abs() + added.abs())};
}

class EveryLayout : public testing::TestWithParam<std::string> {
 protected:
  at::Tensor source = test::weight_for(GetParam());
  const int64_t n = source.size(0), k = source.size(1);
};

TEST_P(EveryLayout, EveryProduct) {
  const at::Tensor q = from_float(source, GetParam()), broken = test::with_broken_scale(q);
  const double of_weight = test::figure_of_weight(q, source);
  const DispatchScope scope(DispatchScope::Fallback::error);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const bool full : {false, true}) {
      const at::Tensor weight = full ? test::full_precision(q) : q,
                       wrong = full ? test::full_precision(broken) : broken;
      const at::Tensor all = some_input(16, k, type);
      const test::Operands operands = test::operands(all, weight);
      const test::Exact product = test::product(operands);
      // What quantization may cost, from what it costs either operand.
      const double error =
          1.25 * std::hypot(test::relative(operands.x, operands.x_before), of_weight) + test::rounding_of(type);
      for (const Operation& op : kOperations) {
        SCOPED_TRACE(op.name + ", " + c10::toString(type) + (full ? ", full_precision_matrix_mult" : ""));
        const at::Tensor x = all.slice(0, 0, op.rows), y = op.run(x, weight), off = op.run(x, wrong);
        ASSERT_EQ(y.scalar_type(), type);
        const test::Exact exact = expected(op, product, type);
        ASSERT_EQ(y.sizes(), exact.y.sizes());
        EXPECT_LE(test::worst(y, exact), 1);
        EXPECT_GT(test::worst(off, exact), 1) << "negative control";
        if (op.rows == 1) continue;
        const at::Tensor floats = op.run(x.to(at::kDouble), source.to(at::kDouble));
        EXPECT_LE(test::relative(y, floats), error);
        if (std::abs(op.beta) < 1) {
          EXPECT_GT(test::relative(off, floats), error) << "negative control";
        }
      }
    }
}

TEST_P(EveryLayout, ProductsWithTheWeightAsItIsStored) {
  const at::Tensor q = from_float(source, GetParam()), values = dequantized(q, at::kFloat).to(at::kDouble),
                   broken = test::with_broken_scale(q);
  const bool rotates = quantized(q).stored()->layout.transformed;
  const double of_weight = test::figure_of_weight(q, source);
  const DispatchScope scope(DispatchScope::Fallback::error);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(type));
    const at::Tensor g = some_input(16, n, type);
    test::Exact exact = test::product(g.to(at::kDouble), values, rotates);
    // Scales of the weight's rows are multiplied onto g, which bf16 kernels round again (kernel/gemm/float_gemm.h).
    if (type == at::kBFloat16) exact.bound = exact.bound * (1 + 0x1p-8 / (test::kEps * static_cast<double>(n + 16)));
    EXPECT_LE(test::worst(at::mm(g, q), exact), 1);
    EXPECT_LE(test::worst(at::linear(g, q.t()), exact), 1);
    EXPECT_LE(test::worst(at::mm(q.t(), g.t()).t(), exact), 1);
    EXPECT_LE(test::worst(at::mv(q.t(), g[0]).unsqueeze(0), {exact.y.slice(0, 0, 1), exact.bound.slice(0, 0, 1)}), 1);
    EXPECT_GT(test::worst(at::mm(g, broken), exact), 1) << "negative control";
    const double error = 1.25 * of_weight + test::rounding_of(type);
    const at::Tensor floats = g.to(at::kDouble).matmul(source.to(at::kDouble));
    EXPECT_LE(test::relative(at::mm(g, q), floats), error);
    EXPECT_GT(test::relative(at::mm(g, broken), floats), error) << "negative control";
  }
}

TEST_P(EveryLayout, SizesThatDivideByNothing) {
  size_t shapes = 0;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 17}, Shape{40, 64}, Shape{217, 256}, Shape{33, 96}}) {
    const at::Tensor weight = some_weight(shape[0], shape[1], at::kFloat);
    at::Tensor q;
    try {
      q = from_float(weight, GetParam());
    } catch (const Error&) {
      continue;
    }
    ++shapes;
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      for (const int64_t m : {0, 1, 2, 7, 33}) {
        SCOPED_TRACE(to_string(shape) + ", " + c10::toString(type) + ", M = " + std::to_string(m));
        const at::Tensor x = some_input(m, shape[1], type);
        const at::Tensor y = at::linear(x, q), off = at::linear(x, test::with_broken_scale(q));
        ASSERT_EQ(y.sizes(), at::IntArrayRef({m, shape[0]}));
        if (m == 0) continue;
        const test::Exact exact = test::product(test::operands(x, q));
        EXPECT_LE(test::worst(y, exact), 1);
        EXPECT_GT(test::worst(off, exact), 1) << "negative control";
        EXPECT_TRUE(at::mm(x, q.t()).equal(y));
        EXPECT_TRUE(at::matmul(x, q.t()).equal(y));
      }
    EXPECT_EQ(at::matmul(at::empty({2, 0, shape[1]}), q.t()).sizes(), at::IntArrayRef({2, 0, shape[0]}));
    EXPECT_EQ(at::mm(q, at::empty({shape[1], 0})).sizes(), at::IntArrayRef({shape[0], 0}));
  }
  RecordProperty("shapes", static_cast<int>(shapes));
}

TEST_P(EveryLayout, BanksOfExperts) {
  const at::Tensor weight = some_weight(512, 512, at::kFloat).view({2, 256, 512});
  at::Tensor q;
  try {
    q = from_float(weight, GetParam());
  } catch (const Error& error) {
    EXPECT_EQ(error.name(), "shape-refused");
    return;
  }
  const at::Tensor broken = test::with_broken_scale(q);
  const DispatchScope scope(DispatchScope::Fallback::error);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor x = some_input(14, 512, type).view({2, 7, 512});
    const at::Tensor y = at::bmm(x, q.transpose(1, 2)), off = at::bmm(x, broken.transpose(1, 2));
    EXPECT_TRUE(at::matmul(x, q.mT()).equal(y));
    for (const int64_t expert : {0, 1}) {
      const test::Exact exact = test::product(test::operands(x[expert], q, expert));
      EXPECT_LE(test::worst(y[expert], exact), 1);
      EXPECT_GT(test::worst(off[expert], exact), 1) << "negative control";
    }
    EXPECT_LE(test::worst(at::bmm(y, q), {at::bmm(y.to(at::kDouble), dequantized(q, at::kFloat).to(at::kDouble)),
                                          at::full({2, 7, 512}, 1e-3 * y.abs().max().item<double>())}),
              1);
  }
}

TEST_P(EveryLayout, Embedding) {
  const at::Tensor q = from_float(source, GetParam()), broken = test::with_broken_scale(q);
  const at::Tensor rows = torch::tensor({{3, 251, 3}, {0, 128, 17}}), wanted = source.index_select(0, rows.flatten());
  const DispatchScope scope(DispatchScope::Fallback::error);
  const double error = 1.25 * test::figure_of_weight(q, source);
  const auto flat = [&](const at::Tensor& table) { return at::embedding(table, rows).view({6, k}); };
  EXPECT_TRUE(flat(q).equal(dequantized(q).index_select(0, rows.flatten())));
  EXPECT_FALSE(flat(broken).equal(dequantized(q).index_select(0, rows.flatten()))) << "negative control";
  EXPECT_LE(test::relative(flat(q), wanted), error);
  EXPECT_GT(test::relative(flat(broken), wanted), error) << "negative control";
  EXPECT_EQ(at::embedding(q, at::empty({0, 2}, at::kLong)).sizes(), at::IntArrayRef({0, 2, k}));
}

TEST_P(EveryLayout, StaticScalesAndSmoothing) {
  const at::Tensor plain = from_float(source, GetParam());
  if (quantized(plain).stored()->layout.format->input_scale_divisor == 0) return;
  const at::Tensor x = some_input(16, 512, at::kBFloat16),
                   factors = some_input(1, 512, at::kFloat, 9).view({512}).abs() + 0.5;
  const float scale = 4.5f / quantized(plain).stored()->layout.format->input_scale_divisor;
  const auto with = [&](const at::Tensor& q) {
    return test::with_options(q, {.input_scale = scale, .pre_quant_scale = factors});
  };
  const at::Tensor q = with(plain), broken = with(test::with_broken_scale(plain));
  const test::Exact exact = test::product(test::operands(x, q));
  EXPECT_LE(test::worst(at::linear(x, q), exact), 1);
  EXPECT_LE(test::worst(at::mm(x, q.t()), exact), 1);
  EXPECT_GT(test::worst(at::linear(x, broken), exact), 1) << "negative control";
  EXPECT_GT(test::worst(at::linear(x, plain), exact), 1) << "negative control: neither of them";
}

INSTANTIATE_TEST_SUITE_P(Operations, EveryLayout, testing::ValuesIn(test::stored_layouts()), test::name_of);

}  // namespace
}  // namespace mezzotint::tensor
