// Stored fp8, fp4, int4 and int8 weights times bf16 or float32 activations, and the quantization of activations.
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <random>

#include "gemm/support.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/e2m1.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/base/e5m2.h"
#include "mezzotint/kernel/gemm/float_gemm.h"
#include "mezzotint/kernel/gemm/quantize_float.h"

namespace mezzotint::bench {
namespace {

using namespace kernel;

struct Kind {
  const char* name;
  ElementCode code;
  ScaleCode scale = ScaleCode::none;
  int64_t block = 0;
  int64_t block_rows = 1;
};
const Kind kE4m3{"e4m3", ElementCode::e4m3};
const std::vector<Kind> kKinds = {
    kE4m3,
    {"e5m2", ElementCode::e5m2},
    {"fp4 blocks of 16", ElementCode::e2m1, ScaleCode::e4m3, 16},
    {"mx fp8 blocks of 32", ElementCode::e4m3, ScaleCode::e8m0, 32},
    {"fp8 tiles of 128", ElementCode::e4m3, ScaleCode::f32, 128, 128},
    {"int4", ElementCode::int4},
    {"int8", ElementCode::int8},
    {"bf16", ElementCode::bf16},
};

/// The pool's bytes without bit 6: no code of 8 or 16 bits is NaN or inf then.
const std::vector<uint8_t>& finite_pool() {
  static const std::vector<uint8_t> pool = [] {
    std::vector<uint8_t> bytes = weight_pool();
    for (uint8_t& b : bytes) b &= 0xBF;
    return bytes;
  }();
  return pool;
}

/// One product on rotating weights; activations and y are bf16 or float32.
class Product {
 public:
  Product(const Kind& kind, int64_t m, const Shape& s, DType dtype, bool transposed, int threads)
      : kind_(kind),
        m_(m),
        n_(s.n),
        k_(s.k),
        dtype_(dtype),
        transposed_(transposed),
        threads_(threads),
        w_(s.n * s.k * bits(kind.code) / 8) {
    depth_ = transposed ? n_ : k_, cols_ = transposed ? k_ : n_;
    std::mt19937_64 rng(7);
    x_ = activations(m * depth_);
    x16_.resize(x_.size());
    for (size_t i = 0; i < x_.size(); ++i) x16_[i] = static_cast<uint16_t>(Bf16::encode(x_[i]));
    y_.resize(static_cast<size_t>(m * cols_));
    if (kind.block != 0) {
      across_ = (k_ + kind.block - 1) / kind.block;
      const int64_t down = (n_ + kind.block_rows - 1) / kind.block_rows;
      floats_.resize(static_cast<size_t>(down * across_));
      codes_.resize(floats_.size());
      for (size_t i = 0; i < floats_.size(); ++i) {
        codes_[i] = static_cast<uint8_t>(kind.scale == ScaleCode::e4m3 ? 0x30 + rng() % 16 : 120 + rng() % 8);
        floats_[i] = kind.scale == ScaleCode::e4m3   ? E4m3::decode(codes_[i])
                     : kind.scale == ScaleCode::e8m0 ? std::ldexp(1.0f, codes_[i] - 127)
                                                     : 0.5f + static_cast<float>(rng() % 1000) * 0.001f;
      }
    }
    scratch_.resize(float_gemm_scratch(product(), threads));
  }

  bool in_bf16() const { return computes_in_bf16(product()); }

  void run() {
    w_.next();
    float_gemm(product(), {y_.data(), DType::f32, cols_}, scratch_.data(), threads_);
  }

  /// Elements here and there against double precision, in units of the bound of float_gemm.h.
  std::string check(bool spoil) const {
    std::mt19937_64 rng(11);
    double worst = 0;
    for (int i = 0; i < 64; ++i) {
      const int64_t row = static_cast<int64_t>(rng() >> 1) % m_, col = static_cast<int64_t>(rng() >> 1) % cols_;
      double sum = 0, magnitude = 0;
      for (int64_t r = 0; r < depth_; ++r) {
        const double product = static_cast<double>(x_[static_cast<size_t>(row * depth_ + r)]) *
                               (transposed_ ? weight(r, col) : weight(col, r));
        sum += product, magnitude += std::abs(product);
      }
      if (spoil && i == 32) sum += 0.01 * magnitude;
      const double got = y_[static_cast<size_t>(row * cols_ + col)];
      const double bound = (static_cast<double>(depth_) + 4) * 0x1p-24 * magnitude;
      if (!(std::abs(got - sum) <= bound)) return "";
      worst = std::max(worst, std::abs(got - sum) / bound);
    }
    return fmt::format("error {:.4f} of the bound", worst);
  }

 private:
  FloatGemm product() const {
    FloatGemm p;
    p.x = Operand::of(dtype_ == DType::bf16 ? Source{x16_.data(), dtype_, m_, depth_, depth_}
                                            : Source{x_.data(), dtype_, m_, depth_, depth_});
    p.w = {weights(), kind_.code, n_, k_, k_ * bits(kind_.code) / 8, {}};
    p.transposed = transposed_;
    if (kind_.block != 0)
      p.w.scales = {
          kind_.scale,      kind_.scale == ScaleCode::f32 ? static_cast<const void*>(floats_.data()) : codes_.data(),
          kind_.block_rows, kind_.block,
          across_,          false};
    return p;
  }
  const uint8_t* weights() const { return finite_pool().data() + (w_.current() - weight_pool().data()); }
  double weight(int64_t n, int64_t k) const {
    const uint8_t* row = weights() + n * k_ * bits(kind_.code) / 8;
    const uint32_t nibbles = bits(kind_.code) == 4 ? row[k / 2] : 0;
    double value = 0;
    switch (kind_.code) {
      case ElementCode::e4m3:
        value = E4m3::decode(row[k]);
        break;
      case ElementCode::e5m2:
        value = E5m2::decode(row[k]);
        break;
      case ElementCode::e2m1:
        value = E2m1::decode(k % 2 == 0 ? nibbles >> 4 : nibbles & 15);
        break;
      case ElementCode::int4: {
        const int code = static_cast<int>(k % 2 == 0 ? nibbles & 15 : nibbles >> 4);
        value = code < 8 ? code : code - 16;
        break;
      }
      case ElementCode::int8:
        value = static_cast<int8_t>(row[k]);
        break;
      default:
        value = Bf16::decode(static_cast<uint32_t>(row[2 * k] | row[2 * k + 1] << 8));
        break;
    }
    if (kind_.block == 0) return value;
    return value * floats_[static_cast<size_t>(n / kind_.block_rows * across_ + k / kind_.block)];
  }

  Kind kind_;
  int64_t m_, n_, k_, depth_, cols_, across_ = 0;
  DType dtype_;
  bool transposed_;
  int threads_;
  Rotation w_;
  std::vector<float> x_, y_, floats_;
  std::vector<uint16_t> x16_;
  std::vector<uint8_t> codes_, scratch_;
};

void add_product(Report& report, const Kind& kind, const Shape& s, int64_t m, DType dtype, bool transposed,
                 int threads) {
  Row row;
  row.text = fmt::format("{} x {} {} {}, M {} N {} K {}, {} thread{}", dtype == DType::bf16 ? "bf16" : "f32", kind.name,
                         transposed ? "transposed" : "forward", s.model, m, s.n, s.k, threads, threads > 1 ? "s" : "");
  if (!report.wants(row.text)) return;
  Product product(kind, m, s, dtype, transposed, threads);
  row.threads = threads;
  row.operations = 2.0 * static_cast<double>(m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  row.bytes = static_cast<double>(s.n * s.k) * bits(kind.code) / 8;
  row.peak = product.in_bf16() ? report.limits().bf16 : report.limits().f32;
  row.run = [&] { product.run(); };
  row.check = [&](bool spoil) { return product.check(spoil); };
  std::optional<Product> single;
  if (threads > 1) {
    single.emplace(kind, m, s, dtype, transposed, 1);
    row.alone = [&] { single->run(); };
  }
  report.add(row);
}

/// Quantization of M x K bf16 activations.
template <class Quantize>
void add_quantization(Report& report, const char* what, int64_t m, int64_t k, double bits_per_code, Quantize quantize) {
  Row row;
  row.text = fmt::format("quantize {}, M {} K {}, 1 thread", what, m, k);
  if (!report.wants(row.text)) return;
  const std::vector<uint16_t> x = normals(m * k);
  std::vector<uint8_t> codes(static_cast<size_t>(m * k)), blocks(static_cast<size_t>(m * (k / 16 + 1)));
  std::vector<float> scales(static_cast<size_t>(m));
  row.bytes = static_cast<double>(m * k) * (2 + bits_per_code / 8);
  row.run = [&] { quantize(Source{x.data(), DType::bf16, m, k, k}, scales.data(), codes.data(), blocks.data()); };
  row.check = [&](bool spoil) { return as_scalar_does(std::as_bytes(std::span(codes)), row.run, spoil); };
  report.add(row);
}

void rows(Report& report) {
  const bool all = report.options().all;
  for (const Shape& s : shapes()) {
    const bool first = &s == shapes().data();
    for (const int64_t m : {1, 4, 16, 64, 256, 1024, 4096})
      for (const Kind& kind : kKinds) {
        const bool fp8 = kind.code == ElementCode::e4m3 && kind.scale == ScaleCode::none;
        if (!all && !(first ? m == 1 || m == 1024 || (fp8 && m != 4096) : fp8 && m == 1)) continue;
        add_product(report, kind, s, m, DType::bf16, false, 1);
        if (!fp8) continue;
        if (all || m == 1024) add_product(report, kind, s, m, DType::bf16, false, 2);
        if (all || m == 1024 || (first && m == 1)) add_product(report, kind, s, m, DType::f32, false, 1);
        if (all || m == 1024) add_product(report, kind, s, m, DType::bf16, true, 1);
      }
  }
  const int64_t k = 3072;
  add_quantization(report, "fp8, row scales", 1024, k, 8, [](const Source& x, float* rows, uint8_t* codes, uint8_t*) {
    quantize_fp8(x, DType::f8_e4m3, {}, rows, codes);
  });
  add_quantization(
      report, "fp4, row scales", 1024, k, 4,
      [](const Source& x, float* rows, uint8_t* codes, uint8_t* blocks) { quantize_fp4(x, {}, rows, codes, blocks); });
  add_quantization(report, "mx fp8", 1024, k, 8,
                   [](const Source& x, float*, uint8_t* codes, uint8_t* blocks) { quantize_mx(x, codes, blocks); });
}
const Section section(rows);

}  // namespace
}  // namespace mezzotint::bench
