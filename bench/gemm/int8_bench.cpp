// int8 products, block-wise and per row, and the quantization of their activations.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <optional>
#include <random>

#include "gemm/support.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/gemm/quantize_rows.h"

namespace mezzotint::bench {
namespace {

using namespace kernel;

std::vector<float> numbers(int64_t count, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<float> list(static_cast<size_t>(count));
  for (float& v : list) v = std::uniform_real_distribution<float>(0.001f, 0.01f)(rng);
  return list;
}

/// One product on rotating weights; y is bf16.
class Product {
 public:
  Product(int64_t m, const Shape& shape, bool scaled, bool transposed, int threads)
      : m_(m), n_(shape.n), k_(shape.k), scaled_(scaled), transposed_(transposed), threads_(threads), w_(n_ * k_) {
    depth_ = transposed ? n_ : k_, cols_ = transposed ? k_ : n_;
    x_ = activation_codes(m * depth_);
    x_scales_ = numbers(m * blocks(depth_), 1), w_scales_ = numbers(blocks(n_) * blocks(k_), 2);
    row_scale_ = numbers(m, 3), col_scale_ = numbers(cols_, 4);
    y_.resize(static_cast<size_t>(m * cols_));
    scratch_.resize(int8_gemm_scratch_bytes(m, n_, k_, threads));
  }

  void run() {
    w_.next();
    const Output y{y_.data(), DType::bf16, cols_};
    transposed_ ? int8_transposed(product(), y, scratch_, threads_) : int8_forward(product(), y, scratch_, threads_);
  }

  /// Elements here and there against the definition in int8_gemm.h, every bit.
  std::string check(bool spoil) const {
    std::mt19937_64 rng(11);
    constexpr int kSamples = 200;
    int right = 0;
    for (int i = 0; i < kSamples; ++i) {
      const int64_t row = static_cast<int64_t>(rng()) & INT64_MAX, col = static_cast<int64_t>(rng()) & INT64_MAX;
      const float exact = element(row % m_, col % cols_) * (spoil && i == kSamples / 2 ? 1.25f : 1.0f);
      right += y_[static_cast<size_t>(row % m_ * cols_ + col % cols_)] == Bf16::encode(exact);
    }
    return right == kSamples ? "exact" : "";
  }

 private:
  static int64_t blocks(int64_t n) { return (n + kInt8Block - 1) / kInt8Block; }
  Int8Product product() const {
    Int8Product p{m_, n_, k_, {}, {}, {}};
    p.x = {x_.data(), depth_, scaled_ ? x_scales_.data() : nullptr, blocks(depth_)};
    p.w = {reinterpret_cast<const int8_t*>(w_.current()), k_, scaled_ ? w_scales_.data() : nullptr, blocks(k_)};
    if (!scaled_) p.epilogue.row_scale = row_scale_.data();
    if (!scaled_ && !transposed_) p.epilogue.col_scale = col_scale_.data();
    return p;
  }
  float element(int64_t row, int64_t col) const {
    const Int8Product p = product();
    const int64_t step = scaled_ ? kInt8Block : depth_;
    float acc = 0;
    for (int64_t from = 0; from < depth_; from += step) {
      int64_t sum = 0;
      for (int64_t r = from; r < std::min(depth_, from + step); ++r)
        sum += int64_t{p.x.codes[row * depth_ + r]} * p.w.codes[transposed_ ? r * k_ + col : col * k_ + r];
      const int64_t along = from / kInt8Block, across = col / kInt8Block;
      const float scale = scaled_ ? x_scales_[static_cast<size_t>(row * blocks(depth_) + along)] *
                                        w_scales_[static_cast<size_t>(transposed_ ? along * blocks(k_) + across
                                                                                  : across * blocks(k_) + along)]
                                  : 1.0f;
      acc = std::fma(static_cast<float>(sum), scale, acc);
    }
    if (scaled_) return acc;
    const float s = row_scale_[static_cast<size_t>(row)];
    return acc * (transposed_ ? s : s * col_scale_[static_cast<size_t>(col)]);
  }

  int64_t m_, n_, k_, depth_, cols_;
  bool scaled_, transposed_;
  int threads_;
  Rotation w_;
  std::vector<int8_t> x_;
  std::vector<float> x_scales_, w_scales_, row_scale_, col_scale_;
  std::vector<uint16_t> y_;
  std::vector<std::byte> scratch_;
};

void add_product(Report& report, const Shape& s, int64_t m, bool scaled, bool transposed, int threads) {
  Row row;
  row.text = fmt::format("int8 {} {} {}, M {} N {} K {}, {} thread{}", scaled ? "block" : "row",
                         transposed ? "transposed" : "forward", s.model, m, s.n, s.k, threads, threads > 1 ? "s" : "");
  if (!report.wants(row.text)) return;
  Product product(m, s, scaled, transposed, threads);
  row.threads = threads;
  row.operations = 2.0 * static_cast<double>(m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  row.bytes = static_cast<double>(s.n * s.k);
  row.peak = report.limits().int8;
  row.run = [&] { product.run(); };
  row.check = [&](bool spoil) { return product.check(spoil); };
  std::optional<Product> single;
  if (threads > 1) {
    single.emplace(m, s, scaled, transposed, 1);
    row.alone = [&] { single->run(); };
  }
  report.add(row);
}

/// Quantization of M x K bf16 activations; what it must move is the input and the codes.
void add_quantization(Report& report, const char* what, int64_t m, int64_t k, const Int8Quantization& how) {
  Row row;
  row.text = fmt::format("quantize {}, M {} K {}, 1 thread", what, m, k);
  if (!report.wants(row.text)) return;
  const int64_t cols = how.prologue == Prologue::swiglu ? 2 * k : k;
  const std::vector<uint16_t> x = normals(m * cols);
  std::vector<int8_t> codes(static_cast<size_t>(m * k));
  std::vector<float> scales(static_cast<size_t>(m * ((k + 127) / 128)));
  std::vector<std::byte> scratch(quantize_int8_scratch_bytes(m, k, 1));
  const Int8BlockOutput out{codes.data(), k, scales.data(), how.scaling == Int8Scaling::row ? 1 : (k + 127) / 128};
  row.bytes = static_cast<double>(m * cols * 2 + m * k);
  row.run = [&] { quantize_int8({x.data(), DType::bf16, m, cols, cols}, how, out, scratch); };
  row.check = [&](bool spoil) { return as_scalar_does(std::as_bytes(std::span(codes)), row.run, spoil); };
  report.add(row);
}

void rows(Report& report) {
  const bool all = report.options().all;
  for (const Shape& s : shapes()) {
    const bool square = &s == shapes().data();
    for (const int64_t m : {1, 16, 64, 256, 1024, 4096}) {
      if (!all && !(square ? m != 4096 : m == 1)) continue;
      for (const bool scaled : {false, true})
        for (const int threads : {1, 2}) {
          if (threads > 1 && !(all ? m >= 1024 : m == 1024)) continue;
          add_product(report, s, m, scaled, false, threads);
          if (all ? m >= 64 : m == 1024 && threads == 1) add_product(report, s, m, scaled, true, threads);
        }
    }
  }
  for (const int64_t m : {1, 16, 64, 256})
    for (const int64_t k : {3072, 4096, 5120, 10240, 12288, 13824, 14336})
      if (all) add_quantization(report, "row", m, k, {});
  for (const int64_t k : {3072, 4096, 5120, 10240, 12288, 13824, 14336}) {
    if (!all && k != 3072) continue;
    add_quantization(report, "row", 1024, k, {});
    if (k != 3072 && k != 14336) continue;
    add_quantization(report, "block", 1024, k, {.scaling = Int8Scaling::block});
    add_quantization(report, "row, rotated by 256", 1024, k, {.rotation = 256});
    add_quantization(report, "block, gelu", 1024, k, {.scaling = Int8Scaling::block, .prologue = Prologue::gelu_tanh});
    add_quantization(report, "block, swiglu", 1024, k, {.scaling = Int8Scaling::block, .prologue = Prologue::swiglu});
  }
}
const Section section(rows);

}  // namespace
}  // namespace mezzotint::bench
