// The kernels for NVIDIA GPUs: GB/s of every codec (bytes in + out) beside a copy, TOP/s of the int8 products beside
// cuBLAS where that is on the library path. Every row checks its answer against the CPU before it is timed; a wrong one
// is not timed and the program fails.
//
//     bench_cuda [part of a name]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cuda/cublas.h"
#include "mezzotint/base/bf16.h"
#include "mezzotint/base/error.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"
#include "mezzotint/kernel/cuda/groups.h"
#include "mezzotint/kernel/cuda/rotate.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/fp4.h"
#include "mezzotint/kernel/hadamard.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/reduce.h"

namespace {

using namespace mezzotint;
using namespace mezzotint::kernel;

int failures = 0;
std::string filter;

class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes), data_(cuda::allocate(bytes)) {}
  template <class T>
  explicit Memory(const std::vector<T>& host) : Memory(host.size() * sizeof(T)) {
    cuda::copy_to_device(data_, host.data(), bytes_);
  }
  ~Memory() { cuda::release(data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T = uint8_t>
  T* as() const {
    return static_cast<T*>(data_);
  }
  template <class T = uint8_t>
  std::vector<T> first(size_t count) const {
    std::vector<T> out(count);
    cuda::copy_to_host(out.data(), data_, count * sizeof(T));
    return out;
  }

 private:
  size_t bytes_;
  void* data_;
};

/// Best of several runs, in ms; each repeats the work until it takes a while.
double milliseconds(const std::function<void()>& work) {
  struct Loop {
    const std::function<void()>& work;
    int times;
  } loop{work, 1};
  const auto run = [](void* p) {
    const auto& l = *static_cast<Loop*>(p);
    for (int i = 0; i < l.times; ++i) l.work();
  };
  work();
  const float once = std::max(cuda::elapsed_ms(run, &loop), 1e-3f);
  loop.times = std::clamp(static_cast<int>(20 / once), 1, 2000);
  double best = 1e30;
  for (int i = 0; i < 5; ++i) best = std::min(best, static_cast<double>(cuda::elapsed_ms(run, &loop)) / loop.times);
  return best;
}

std::vector<uint16_t> bf16_weights(int64_t count, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<uint16_t> w(static_cast<size_t>(count));
  for (size_t i = 0; i < w.size(); ++i)
    w[i] = i < 65536 ? static_cast<uint16_t>(Bf16::encode(normal(rng))) : w[i % 65536] ^ static_cast<uint16_t>(i >> 20);
  return w;
}

// --- codecs
// -----------------------------------------------------------------------------------------------------------
constexpr int64_t kRows = 8192, kCols = 8192, kChecked = 64;  // rows that the CPU checks
constexpr int64_t kCount = kRows * kCols;

double copy_gbps = 0;

/// `bytes` in and out, `right` tells whether the first kChecked rows are the CPU's.
void codec(const std::string& name, double bytes, const std::function<void()>& work,
           const std::function<bool()>& right) {
  if (name.find(filter) == std::string::npos && copy_gbps != 0) return;
  work();
  cuda::synchronize(nullptr);
  if (!right()) {
    std::printf("%-34s WRONG\n", name.c_str());
    ++failures;
    return;
  }
  const double gbps = bytes / milliseconds(work) * 1e-6;
  if (copy_gbps == 0) copy_gbps = gbps;
  std::printf("%-34s %8.0f GB/s  %5.1f%% of copy\n", name.c_str(), gbps, 100 * gbps / copy_gbps);
}

void codecs() {
  const auto host = bf16_weights(kCount, 1);
  const Memory x(host), codes(static_cast<size_t>(kCount)), values(static_cast<size_t>(kCount) * 4);
  const Memory scale(4), multiplier(4), rows(static_cast<size_t>(kRows) * 4);
  const Memory blocks(static_cast<size_t>(kCount / 8));
  const Source source{x.as<void>(), DType::bf16, kRows, kCols, kCols};
  const Source sample{host.data(), DType::bf16, kChecked, kCols, kCols};
  const auto checked = static_cast<size_t>(kChecked * kCols);
  const ElementIndex index{0, static_cast<uint64_t>(kCols)};
  const double n = static_cast<double>(kCount);

  codec(
      "copy", 4 * n,
      [&] { cuda::copy_on_device(values.as<void>(), x.as<void>(), static_cast<uint64_t>(kCount) * 2, nullptr); },
      [&] {
        return values.first<uint16_t>(checked) == std::vector<uint16_t>(host.begin(), host.begin() + kChecked * kCols);
      });

  const auto tensor_scale = [&](cuda::ScaleRule rule, float largest) {
    cuda::amax_blocks(source, 0, 0, scale.as<float>(), 1, nullptr, nullptr);
    cuda::scales_from_amax(scale.as<float>(), multiplier.as<float>(), 1, rule, largest, 1e-30f, nullptr);
  };
  codec(
      "amax, tensor", 2 * n, [&] { cuda::amax_blocks(source, 0, 0, scale.as<float>(), 1, nullptr, nullptr); },
      [&] {
        return scale.first<float>(1)[0] == amax({host.data(), DType::bf16, kRows, kCols, kCols}).value;
      });
  codec(
      "amax, rows", 2 * n, [&] { cuda::amax_blocks(source, 1, 0, rows.as<float>(), 1, nullptr, nullptr); },
      [&] {
        std::vector<float> expected(kChecked);
        amax_rows(sample, expected.data());
        return rows.first<float>(kChecked) == expected;
      });
  for (const auto& [label, to, largest] :
       {std::tuple{"e4m3", DType::f8_e4m3, 448.0f}, std::tuple{"e5m2", DType::f8_e5m2, 57344.0f}})
    for (const Rounding& rounding : {Rounding::nearest(), Rounding::stochastic(1, "w")}) {
      const bool random = rounding.mode == Rounding::Mode::stochastic;
      codec(
          std::string(label) + (random ? ", stochastic" : ", amax included"), (random ? 3 : 5) * n,
          [&] {
            if (!random) tensor_scale(cuda::ScaleRule::divide, largest);
            cuda::encode_fp8(source, Scales::scalar(multiplier.as<float>()), to, codes.as(), kCols, rounding, index,
                             nullptr);
          },
          [&] {
            const float m = multiplier.first<float>(1)[0];
            std::vector<uint8_t> expected(checked);
            encode_fp8(sample, Scales::scalar(&m), to, expected.data(), kCols, rounding, index);
            return codes.first(checked) == expected;
          });
    }
  codec(
      "e5m2 to bf16", 3 * n,
      [&] {
        cuda::decode(codes.as(), DType::f8_e5m2, kRows, kCols, kCols, Scales::scalar(scale.as<float>()),
                     values.as<void>(), DType::bf16, kCols, nullptr);
      },
      [&] {
        const auto q = codes.first(checked);
        const float s = scale.first<float>(1)[0];
        std::vector<float> expected(checked);
        decode_fp8(q.data(), DType::f8_e5m2, kChecked, kCols, kCols, Scales::scalar(&s), expected.data(), kCols);
        const auto got = values.first<uint16_t>(checked);
        for (size_t i = 0; i < checked; ++i)
          if (got[i] != static_cast<uint16_t>(Bf16::encode(expected[i]))) return false;
        return true;
      });
  codec(
      "int8 rows, amax included", 5 * n,
      [&] {
        cuda::amax_blocks(source, 1, 0, rows.as<float>(), 1, nullptr, nullptr);
        cuda::scales_from_amax(rows.as<float>(), nullptr, kRows, cuda::ScaleRule::divide_floor, 127.0f, 1e-30f,
                               nullptr);
        cuda::encode_int8(source, Scales::per_row(rows.as<float>()), -128, codes.as<int8_t>(), kCols, {}, index,
                          nullptr);
      },
      [&] {
        const auto s = rows.first<float>(kChecked);
        std::vector<int8_t> expected(checked);
        encode_int8(sample, Scales::per_row(s.data()), -128, expected.data(), kCols);
        return codes.first<int8_t>(checked) == expected;
      });
  codec(
      "int8 groups of 128, one pass", (3 + 4.0 / 128) * n,
      [&] {
        cuda::quantize_groups(cuda::Group::int8_128, source, nullptr, 1e-8f, codes.as(), blocks.as<void>(), {}, index,
                              nullptr);
      },
      [&] {
        const auto s = blocks.first<float>(checked / 128);
        std::vector<int8_t> expected(checked);
        encode_int8(sample, Scales::blocks(s.data(), kCols / 128, 1, 128), -127, expected.data(), kCols);
        return codes.first<int8_t>(checked) == expected;
      });
  codec(
      "4-bit floats, amax included", (4.5 + 1.0 / 16) * n,
      [&] {
        tensor_scale(cuda::ScaleRule::fp4_tensor, 2688.0f);
        cuda::quantize_groups(cuda::Group::fp4_16, source, scale.as<float>(), 0, codes.as(), blocks.as<void>(), {},
                              index, nullptr);
      },
      [&] {
        const float global = scale.first<float>(1)[0];
        const int64_t across = kCols / 16;
        std::vector<uint8_t> s(static_cast<size_t>(kChecked * across)), expected(checked / 2);
        fp4_scales(sample, global, s.data(), across);
        std::vector<float> factors(s.size());
        decode_fp8(s.data(), DType::f8_e4m3, kChecked, across, across, Scales::scalar(&global), factors.data(), across);
        encode_fp4(sample, Scales::blocks(factors.data(), across, 1, 16), expected.data(), kCols / 2);
        return codes.first(checked / 2) == expected;
      });
  codec(
      "4-bit floats to bf16", (2.5 + 1.0 / 16) * n,
      [&] {
        cuda::dequantize_groups(cuda::Group::fp4_16, codes.as(), blocks.as(), scale.as<float>(), kRows, kCols,
                                values.as<void>(), DType::bf16, kCols, nullptr);
      },
      [&] {  // within half the largest step of the code
        const auto got = values.first<uint16_t>(checked);
        const float global = scale.first<float>(1)[0];
        for (size_t i = 0; i < checked; ++i) {
          const float top = 448 * global;  // of a block's scale
          if (!(std::abs(Bf16::decode(got[i]) - Bf16::decode(host[i])) <= top)) return false;
        }
        return true;
      });
  codec(
      "e4m3 with powers of two, one pass", (3 + 1.0 / 32) * n,
      [&] {
        cuda::quantize_groups(cuda::Group::fp8_32, source, nullptr, 0, codes.as(), blocks.as<void>(), {}, index,
                              nullptr);
        cuda::dequantize_groups(cuda::Group::fp8_32, codes.as(), blocks.as(), nullptr, kChecked, kCols,
                                values.as<void>(), DType::bf16, kCols, nullptr);
      },
      [&] {  // half a step of 3 mantissa bits, or of the smallest numbers under amax / 448 rounded up
        const auto got = values.first<uint16_t>(checked);
        for (size_t i = 0; i < checked; i += 32) {
          float top = 0;
          for (size_t j = i; j < i + 32; ++j) top = std::max(top, std::abs(Bf16::decode(host[j])));
          for (size_t j = i; j < i + 32; ++j) {
            const float v = Bf16::decode(host[j]);
            const float bound = std::max(std::abs(v) * 0.0625f, top * 0x1p-17f) + std::abs(v) * 0.004f;
            if (!(std::abs(Bf16::decode(got[j]) - v) <= bound)) return false;
          }
        }
        return true;
      });
  for (const int64_t group : {256, 4096})
    codec(
        "rotation of " + std::to_string(group) + ", bf16 to float32", 6 * n,
        [&] { cuda::rotate_convrot(source, group, values.as<void>(), DType::f32, kCols, nullptr); },
        [&] {
          std::vector<float> expected(checked);
          for (size_t i = 0; i < checked; ++i) expected[i] = Bf16::decode(host[i]);
          rotate_convrot(expected.data(), static_cast<int64_t>(checked), group);
          return values.first<float>(checked) == expected;
        });
  const Source rotated{values.as<void>(), DType::f32, kRows, kCols, kCols};
  codec(
      "int4 rows of float32", 4.5 * n,
      [&] { cuda::encode_int4(rotated, Scales::per_row(rows.as<float>()), codes.as(), kCols / 2, {}, index, nullptr); },
      [&] {
        const auto v = values.first<float>(checked);
        const auto s = rows.first<float>(kChecked);
        std::vector<uint8_t> expected(checked / 2);
        encode_int4({v.data(), DType::f32, kChecked, kCols, kCols}, Scales::per_row(s.data()), expected.data(),
                    kCols / 2, 0);
        return codes.first(checked / 2) == expected;
      });
}

// --- products
// ---------------------------------------------------------------------------------------------------------
struct Shape {
  const char* model;
  int64_t n, k;
};
constexpr Shape kShapes[] = {{"Wan 5B attention", 3072, 3072},   {"Wan 5B feed-forward", 14336, 3072},
                             {"Wan 14B attention", 5120, 5120},  {"Wan 14B feed-forward", 13824, 5120},
                             {"Flux feed-forward", 12288, 3072}, {"T5 feed-forward", 10240, 4096}};

/// Whether some rows of y are the product within gemm_int8.h's bound and bf16's rounding.
bool right(bool blockwise, int64_t m, int64_t n, int64_t k, const std::vector<int8_t>& x, const std::vector<int8_t>& w,
           const std::vector<float>& xs, const std::vector<float>& ws, const std::vector<uint16_t>& y) {
  const int64_t blocks = (k + 127) / 128;
  for (int64_t row = 0; row < m; row += std::max<int64_t>(1, m / 3))
    for (int64_t col = 0; col < n; col += 97) {
      double sum = 0, size = 0;
      for (int64_t i = 0; i < k; ++i) {
        const auto at = [](int64_t j) { return static_cast<size_t>(j); };
        const double scale = blockwise
                                 ? double{xs[at(row * blocks + i / 128)]} * double{ws[at(col / 128 * blocks + i / 128)]}
                                 : double{xs[at(row)]} * double{ws[at(col)]};
        const double p = x[at(row * k + i)] * w[at(col * k + i)] * scale;
        sum += p;
        size += std::abs(p);
      }
      const double bound = static_cast<double>(blocks + 3) * size * 0x1p-24;
      const double got = double{Bf16::decode(y[static_cast<size_t>(row * n + col)])};
      if (!(std::abs(got - sum) <= bound + (std::abs(sum) + bound) * 0x1p-8)) return false;
    }
  return true;
}

void products() {
  const bench::Cublas cublas;
  std::printf("\n%s\n%-22s %6s %16s %16s %16s %16s\n", cublas.what().c_str(), "TOP/s", "M", "int8 blocks", "int8 rows",
              "cuBLAS int8", "cuBLAS bf16");
  std::mt19937_64 rng(2);
  for (const Shape& shape : kShapes) {
    if (std::string("product ").append(shape.model).find(filter) == std::string::npos) continue;
    const auto [model, n, k] = shape;
    const int64_t most = 4096, blocks = (k + 127) / 128;
    std::vector<int8_t> x(static_cast<size_t>(most * k)), w(static_cast<size_t>(n * k));
    for (int8_t& q : x) q = static_cast<int8_t>(rng());
    for (int8_t& q : w) q = static_cast<int8_t>(rng());
    std::vector<float> xs(static_cast<size_t>(most * blocks)), ws(static_cast<size_t>(std::max(n, n / 128 * blocks)));
    for (float& s : xs) s = std::uniform_real_distribution<float>(0.5f, 2)(rng) * 1e-3f;
    for (float& s : ws) s = std::uniform_real_distribution<float>(0.5f, 2)(rng) * 1e-3f;
    const auto bx = bf16_weights(most * k, 3), bw = bf16_weights(n * k, 4);
    const Memory dx(x), dw(w), dxs(xs), dws(ws), dbx(bx), dbw(bw), y(static_cast<size_t>(most * n) * 4);
    for (const int64_t m : {1, 16, 64, 256, 1024, 4096}) {
      const cuda::Int8Gemm gemm{.m = m,
                                .n = n,
                                .k = k,
                                .x = dx.as<int8_t>(),
                                .w = dw.as<int8_t>(),
                                .x_stride = k,
                                .w_stride = k,
                                .y = y.as<void>(),
                                .to = DType::bf16,
                                .y_stride = n};
      const double operations = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
      std::printf("%-22s %6lld", model, static_cast<long long>(m));
      for (const bool blockwise : {true, false}) {
        const auto work = [&] {
          if (blockwise) {
            cuda::gemm_int8_blockwise(gemm, dxs.as<float>(), dws.as<float>(), nullptr);
          } else {
            cuda::gemm_int8_rowwise(gemm, dxs.as<float>(), dws.as<float>(), n, nullptr);
          }
        };
        work();
        cuda::synchronize(nullptr);
        if (!right(blockwise, m, n, k, x, w, xs, ws, y.first<uint16_t>(static_cast<size_t>(m * n)))) {
          std::printf(" %16s", "WRONG");
          ++failures;
          continue;
        }
        std::printf(" %16.1f", operations / milliseconds(work) * 1e-9);
      }
      for (const bool eight : {true, false}) {
        const auto run = [&, eight_bits = eight, size = n, depth = k] {
          return eight_bits ? cublas.int8(m, size, depth, dx.as<void>(), dw.as<void>(), y.as<void>())
                            : cublas.bf16(m, size, depth, dbx.as<void>(), dbw.as<void>(), y.as<void>());
        };
        if (run()) {
          std::printf(" %16.1f", operations / milliseconds([&] { run(); }) * 1e-9);
        } else {
          std::printf(" %16s", "-");
        }
      }
      std::printf("\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) filter = argv[1];
  try {
    if (!cuda::available()) {
      std::printf("no GPU%s: nothing to measure\n", cuda::built() ? "" : ", and built without CUDA");
      return 0;
    }
    for (const cuda::Device& d : cuda::devices())
      std::printf("%s, compute capability %d.%d, %d multiprocessors, %.1f GB, memory %.0f GB/s by its clock\n",
                  d.name.c_str(), d.major, d.minor, d.multiprocessors, static_cast<double>(d.memory) * 1e-9,
                  d.memory_gbps);
    codecs();
    products();
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}
