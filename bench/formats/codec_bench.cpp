// Single-thread speed of every format in the table: a 64 MB bf16 weight (or as many values in float32) quantized as the
// converter does it, all passes over the source included, and dequantized to bf16 and float32. Bytes per second count
// what is read and written once, whatever the number of passes; "of_copy" compares that with memcpy of 64 MB, measured
// in the same run, in percent. A format whose bytes differ from the scalar level's, or whose values are further from
// the weight than its bound allows, is not timed and the program fails.
//
//     bench_formats --benchmark_filter=nvfp4
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/isa.h"

namespace {

using namespace mezzotint;
using namespace mezzotint::formats;
using kernel::Isa;

constexpr int64_t kRows = 4096, kCols = 8192;  // 64 MB of bf16
constexpr int64_t kElements = kRows * kCols;
constexpr int64_t kTileBytes = 256 << 10;

/// bf16 values of a normal distribution, as weights have it.
const std::vector<uint16_t>& weight() {
  static const std::vector<uint16_t> values = [] {
    std::mt19937 rng(20240602);
    std::normal_distribution<float> normal(0, 0.02f);
    std::vector<uint16_t> period(1 << 18), all(static_cast<size_t>(kElements));
    for (uint16_t& x : period) x = static_cast<uint16_t>(Bf16::encode(normal(rng)));
    for (size_t i = 0; i < all.size(); ++i) all[i] = period[(i + i / period.size()) % period.size()];
    return all;
  }();
  return values;
}

/// Processor time of this thread: neighbours on a shared machine do not count.
double now() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Seconds of the best of several copies of 64 MB.
double copy_seconds() {
  static const double seconds = [] {
    std::vector<uint16_t> target(weight().size(), 1);
    double best = 1e9;
    for (int i = 0; i < 20; ++i) {
      const double start = now();
      std::memcpy(target.data(), weight().data(), target.size() * 2);
      benchmark::ClobberMemory();
      best = std::min(best, now() - start);
    }
    return best;
  }();
  return seconds;
}

/// One layer and all memory that its two directions need.
struct Work {
  Layout layout;
  ChooseOptions choose;
  Parameters parameters;
  std::vector<std::byte> codes;
  std::vector<float> stats, scratch, values;
  std::vector<uint16_t> narrow;

  explicit Work(const Layout& of, int effort) : layout(of), codes(codes_bytes(of)) { choose.effort = effort; }

  Tile tile(const RowRange& range) const {
    return {weight().data() + range.row0 * kCols, DType::bf16, range.row0, range.rows, 0, kCols, kCols};
  }
  void encode(const Tile& prepared) {
    layout.format->encode(layout, parameters, prepared, {},
                          codes.data() + layout.stored_row(prepared.row0) * layout.row_bytes);
  }

  void quantize() {
    const Format& format = *layout.format;
    const auto tiles = row_tiles(layout, rows_per_tile(layout, DType::bf16, kTileBytes));
    ChoosePlan plan{.passes = 0};
    if (format.choose_plan) plan = format.choose_plan(layout, choose);
    stats.assign(plan.stats, 0.0f);
    parameters = new_parameters(layout);
    const bool fused = plan.passes > 0 && plan.fused;
    for (int pass = 0; pass < plan.passes; ++pass) {
      const bool last = fused && pass + 1 == plan.passes;
      for (const RowRange& range : tiles) {
        const Tile prepared = prepare_tile(layout, tile(range), scratch);
        format.observe(layout, choose, pass, prepared, stats.data(), parameters);
        if (last) encode(prepared);
      }
      if (format.finish && !last) format.finish(layout, choose, pass, stats.data(), parameters);
    }
    if (fused) return;
    for (const RowRange& range : tiles) encode(prepare_tile(layout, tile(range), scratch));
  }

  void dequantize(DType to) {
    values.resize(static_cast<size_t>(to == DType::f32 ? kElements : kTileBytes / 2));
    if (to == DType::bf16) narrow.resize(static_cast<size_t>(kElements));
    for (const RowRange& range : row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes))) {
      if (to == DType::bf16) values.resize(std::max(values.size(), static_cast<size_t>(range.rows * kCols)));
      float* out = values.data() + (to == DType::f32 ? range.row0 * kCols : 0);
      decode_rows(layout, parameters, range.row0, range.rows,
                  codes.data() + layout.stored_row(range.row0) * layout.row_bytes, out);
      if (to == DType::bf16)
        kernel::cast({out, DType::f32, range.rows, kCols, kCols}, DType::bf16, narrow.data() + range.row0 * kCols,
                     kCols);
    }
  }

  /// Elements further from the weight (after the transform) than the bound allows. `spoil` scales what came back.
  size_t violations(float spoil) {
    size_t count = 0;
    std::vector<float> bound, back;
    for (const RowRange& range : row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes))) {
      std::vector<float> wide;
      Tile x = float_tile(tile(range), wide);
      if (layout.transformed) layout.format->transform(layout, wide.data(), range.rows, false);
      bound.resize(wide.size());
      back.resize(wide.size());
      layout.format->error_bound(layout, parameters, x, bound.data());
      layout.format->decode(layout, parameters, range.row0, range.rows, 0, kCols,
                            codes.data() + layout.stored_row(range.row0) * layout.row_bytes, back.data(), kCols);
      for (size_t i = 0; i < wide.size(); ++i) count += !(std::abs(wide[i] - back[i] * spoil) <= bound[i]);
    }
    return count;
  }

  bool correct(Isa isa) {
    {
      const kernel::ScopedIsaCap cap(Isa::scalar);
      quantize();
    }
    const auto expected_codes = codes;
    const auto expected = parameters.tensors;
    std::fill(codes.begin(), codes.end(), std::byte{0});
    const kernel::ScopedIsaCap cap(isa);
    quantize();
    if (codes != expected_codes || parameters.tensors != expected) return false;
    dequantize(DType::bf16);
    const std::vector<uint16_t> fast = narrow;
    {
      const kernel::ScopedIsaCap scalar(Isa::scalar);
      dequantize(DType::bf16);
    }
    const bool control =
        violations(1.25f) > 0 && (codes[codes.size() / 2] ^= std::byte{1}) != expected_codes[codes.size() / 2];
    codes = expected_codes;
    return fast == narrow && violations(1) == 0 && control;
  }
};

bool all_correct = true;

void measure(benchmark::State& state, const Layout& layout, int effort, const std::string& what, Isa isa) {
  Work work(layout, effort);
  if (!work.correct(isa)) {
    all_correct = false;
    state.SkipWithError("the answer is wrong");
    return;
  }
  const kernel::ScopedIsaCap cap(isa);
  int64_t bytes = kElements * (what == "dequantize_f32" ? 4 : 2);
  for (const StoredTensor& tensor : layout.tensors) bytes += static_cast<int64_t>(tensor_bytes(tensor));
  double best = 1e9;
  for (auto _ : state) {
    const double start = now();
    if (what == "quantize")
      work.quantize();
    else
      work.dequantize(what == "dequantize_f32" ? DType::f32 : DType::bf16);
    benchmark::ClobberMemory();
    best = std::min(best, now() - start);
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  // Best against best.
  const double copy_rate = static_cast<double>(kElements * 4) / copy_seconds();
  state.counters["best_GB/s"] = static_cast<double>(bytes) / best / 1e9;
  state.counters["of_copy_%"] = 100 * static_cast<double>(bytes) / best / copy_rate;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Layout> layouts;
  for (const Format* format : all_formats())
    if (const auto description = format->describe({{kRows, kCols}, LayerKind::linear}, complete_options(*format, {}));
        description.layout)
      layouts.push_back(*description.layout);
  for (const Layout& layout : layouts)
    for (const Isa isa : kernel::base_isas()) {
      if (!kernel::enabled(isa)) continue;
      const auto add = [&](const std::string& title, const std::string& what, int effort) {
        const std::string full = std::string(layout.format->name) + "/" + title + "/" + std::string(kernel::name(isa));
        benchmark::RegisterBenchmark(full.c_str(), [&layout, what, effort, isa](benchmark::State& state) {
          measure(state, layout, effort, what, isa);
        })->Unit(benchmark::kMillisecond);
      };
      for (int effort = 0; effort <= (layout.format->quantized ? 2 : 0); ++effort)
        add("quantize_effort" + std::to_string(effort), "quantize", effort);
      add("dequantize_bf16", "dequantize_bf16", 0);
      add("dequantize_f32", "dequantize_f32", 0);
    }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::printf("copy of 64 MB: %.2f GB/s in + out\n", static_cast<double>(kElements * 4) / copy_seconds() / 1e9);
  benchmark::RunSpecifiedBenchmarks();
  if (!all_correct) std::fputs("a format gave a wrong answer\n", stderr);
  return all_correct ? 0 : 1;
}
