// Single-thread throughput of the kernels behind convrot_w4a4 and asym_w4a8_int8, step by step: the profile of formats
// whose weights are rotated. Sources of 64 MB; bytes_per_second counts what is read and written, "of_copy" is that in
// percent of memcpy of 64 MB in the same run. A step whose output differs from the scalar level's is not timed.
//
//     bench_kernel --benchmark_filter=fourbit
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/kernel/codebook.h"
#include "mezzotint/kernel/hadamard.h"
#include "mezzotint/kernel/int4.h"
#include "mezzotint/kernel/reduce.h"

namespace {

using namespace mezzotint;
using namespace mezzotint::kernel;

constexpr int64_t kCols = 4096, kBytes = int64_t{64} << 20, kGroup = 16, kGroups = kCols / kGroup;
constexpr int64_t kMostRows = kBytes / 2 / kCols;
constexpr float kTable[16] = {-.980602f, -.794529f, -.638165f, -.500986f, -.377321f, -.263187f, -.155210f, -.050720f,
                              .052541f,  .156985f,  .265284f,  .379533f,  .502636f,  .638953f,  .794876f,  .980671f};

double now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Buffers {
  std::vector<float> wide = std::vector<float>(kBytes / 4);
  std::vector<uint16_t> narrow = std::vector<uint16_t>(kBytes / 2);
  std::vector<uint8_t> codes = std::vector<uint8_t>(kBytes / 2), relative = std::vector<uint8_t>(kMostRows * kGroups);
  std::vector<float> out = std::vector<float>(kBytes / 2), channel = std::vector<float>(kMostRows, 0.0006f);
  std::vector<float> row_scale = std::vector<float>(kMostRows, 0.01f);
  Buffers() {
    std::mt19937 rng(20240603);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<float> period(1 << 18);
    for (float& x : period) x = normal(rng);
    for (size_t i = 0; i < narrow.size(); ++i) {
      const float x = period[(i + i / period.size()) % period.size()];
      if (i < wide.size()) wide[i] = x;
      narrow[i] = static_cast<uint16_t>(Bf16::encode(x));
    }
    for (uint8_t& x : codes) x = static_cast<uint8_t>(rng());
    for (uint8_t& x : relative) x = static_cast<uint8_t>(0x58 + rng() % 24);  // 16 ... 120
  }
};
Buffers& buffers() {
  static Buffers all;
  return all;
}

double copy_rate() {
  static const double rate = [] {
    Buffers& b = buffers();
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      const double start = now();
      std::memcpy(b.out.data(), b.wide.data(), kBytes);
      best = std::min(best, now() - start);
    }
    return 2.0 * kBytes / best;
  }();
  return rate;
}

struct Step {
  const char* name;
  int64_t rows;   // of kCols columns
  double bytes;   // per element, in and out
  size_t result;  // bytes of out that mean something, per element of the matrix, times 64
  std::function<void(int64_t rows)> run;
};

LevelCodes codes_of(int bits) {
  return {.base = bits == 4 ? kTable : nullptr, .bits = bits, .cols = kCols, .group = kGroup};
}
LevelScales scales() {
  Buffers& b = buffers();
  return {b.relative.data(), DType::f8_e4m3, b.channel.data(), nullptr, kMostRows};
}
uint8_t* out_bytes() {
  return reinterpret_cast<uint8_t*>(buffers().out.data());
}
Source wide(int64_t rows) {
  return {buffers().wide.data(), DType::f32, rows, kCols, kCols};
}

std::vector<Step> steps() {
  Buffers& b = buffers();
  const int64_t half = kMostRows, quarter = kMostRows / 2;
  const auto fit = [&b](int bits) {
    return [&b, bits](int64_t rows) {
      float* scale = b.out.data();
      fit_groups(wide(rows), codes_of(bits), GroupFit::alternating, scale, scale + rows * kGroups, nullptr, 0);
    };
  };
  const auto encode = [](int bits) {
    return [bits](int64_t rows) {
      encode_levels(wide(rows), codes_of(bits), scales(), 0, 0, out_bytes(), kCols * bits / 8);
    };
  };
  const auto decode = [&b](int bits) {
    return [&b, bits](int64_t rows) {
      decode_levels(b.codes.data(), kCols * bits / 8, codes_of(bits), scales(), 0, rows, 0, kCols, b.out.data(), kCols);
    };
  };
  return {
      {"int4_quantize_bf16", half, 2.5, 32,
       [&b](int64_t rows) {
         // As the converter does it: tiles that stay in the cache between the two passes.
         constexpr int64_t kTile = 32;
         for (int64_t r = 0; r < rows; r += kTile) {
           const Source tile{b.narrow.data() + r * kCols, DType::bf16, std::min(kTile, rows - r), kCols, kCols};
           amax_rows(tile, b.row_scale.data() + r);
           for (int64_t i = r; i < r + tile.rows; ++i)
             b.row_scale[static_cast<size_t>(i)] = std::max(b.row_scale[static_cast<size_t>(i)], 1e-10f) / 7.0f;
           encode_int4(tile, Scales::per_row(b.row_scale.data(), r), out_bytes() + r * kCols / 2, kCols / 2, 0);
         }
       }},
      {"int4_dequantize_f32", quarter, 4.5, 256,
       [&b](int64_t rows) {
         decode_int4(b.codes.data(), rows, kCols, kCols / 2, 0, Scales::per_row(b.channel.data()), b.out.data(), kCols);
       }},
      {"int4_search_step4", quarter, 4, 0,
       [&b](int64_t rows) {
         std::fill(b.out.begin(), b.out.begin() + rows, 0.01f);
         search_int4_rows(wide(rows), nullptr, 4, 1e-11f, b.out.data());
       }},
      {"rotate256", quarter, 8, 256,
       [&b](int64_t rows) {
         constexpr int64_t kTile = 16 << 10;
         for (int64_t i = 0; i < rows * kCols; i += kTile) {
           std::memcpy(b.out.data() + i, b.wide.data() + i, kTile * 4);
           rotate_convrot(b.out.data() + i, kTile, 256);
         }
       }},
      {"codebook_fit", quarter, 4.25, 16, fit(4)},
      {"six_bit_fit", quarter, 4.25, 16, fit(6)},
      {"codebook_encode", quarter, 4.5625, 32, encode(4)},
      {"six_bit_encode", quarter, 4.8125, 48, encode(6)},
      {"codebook_decode", quarter, 4.5625, 256, decode(4)},
      {"six_bit_decode", quarter, 4.8125, 256, decode(6)},
      {"codebook_search", quarter, 4.125, 4,
       [&b](int64_t rows) {
         std::memcpy(out_bytes(), b.relative.data(), static_cast<size_t>(rows * kGroups));
         search_relative(wide(rows), codes_of(4), scales(), 0, 1, out_bytes());
       }},
  };
}

void measure(benchmark::State& state, const Step& step, Isa isa) {
  const size_t size = step.result == 0 ? 64 : static_cast<size_t>(kCols) * 16 / 64 * step.result;
  step.run(1);  // makes the buffers
  std::vector<uint8_t> expected(size);
  {
    const ScopedIsaCap cap(Isa::scalar);
    step.run(16);
    std::memcpy(expected.data(), out_bytes(), size);
  }
  const ScopedIsaCap cap(isa);
  std::memset(out_bytes(), 0xEE, size);
  step.run(16);
  if (compiled_isa() != isa || std::memcmp(out_bytes(), expected.data(), size) != 0) {
    state.SkipWithError("the answer differs from the scalar level's");
    return;
  }
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    step.run(step.rows);
    best = std::min(best, now() - start);
    benchmark::ClobberMemory();
  }
  const double bytes = static_cast<double>(step.rows * kCols) * step.bytes;
  state.SetBytesProcessed(static_cast<int64_t>(bytes * static_cast<double>(state.iterations())));
  state.counters["ns_per_weight"] = best * 1e9 / static_cast<double>(step.rows * kCols);
  state.counters["of_copy"] = 100 * bytes / best / copy_rate();
}

const bool registered = [] {
  static const std::vector<const char*> names = {"int4_quantize_bf16", "int4_dequantize_f32", "int4_search_step4",
                                                 "rotate256",          "codebook_fit",        "six_bit_fit",
                                                 "codebook_encode",    "six_bit_encode",      "codebook_decode",
                                                 "six_bit_decode",     "codebook_search"};
  for (size_t i = 0; i < names.size(); ++i)
    for (const Isa isa : base_isas())
      if (enabled(isa))
        benchmark::RegisterBenchmark(("fourbit/" + std::string(names[i]) + "/" + std::string(name(isa))).c_str(),
                                     [i, isa](benchmark::State& state) {
                                       static const std::vector<Step> all = steps();
                                       measure(state, all[i], isa);
                                     });
  return true;
}();

}  // namespace
