// Single-thread speed of every format in the table, and of every alias with other options: a 64 MB bf16 weight (or as
// many values in float32) quantized as the converter does it, all passes over the source included, and dequantized to
// bf16 and float32. Bytes per second count what is read and written once, whatever the number of passes; "of_copy"
// compares that with memcpy of 64 MB, measured in the same run, in percent. The label tells the error
// ||Q - W|| / ||W|| and the time against effort 0's, measured in turn with it. A format whose bytes differ from the
// scalar level's on a part of the weight, or whose values are further from the weight than its bound allows, is not
// timed and the program fails.
//
//     bench_formats --benchmark_filter=nvfp4 [--all]
//     bench_formats --inputs FILE
//
// --all adds the other instruction-set levels and effort 2; --inputs writes the weight.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/isa.h"

namespace {

using namespace mezzotint;
using namespace mezzotint::formats;
using kernel::Isa;

constexpr int64_t kRows = 4096, kCols = 8192;  // 64 MB of bf16
constexpr int64_t kElements = kRows * kCols;
constexpr int64_t kSampleRows = 256;  // what the scalar level computes too
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
    const auto elements = static_cast<size_t>(layout.rows * kCols);
    if (to == DType::bf16)
      narrow.resize(elements);
    else
      values.resize(elements);
    for (const RowRange& range : row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes))) {
      const std::byte* from = codes.data() + layout.stored_row(range.row0) * layout.row_bytes;
      const int64_t at = range.row0 * kCols;
      if (to == DType::bf16)
        decode_rows(layout, parameters, range.row0, range.rows, from, narrow.data() + at, scratch);
      else
        decode_rows(layout, parameters, range.row0, range.rows, from, values.data() + at);
    }
  }

  /// ||Q - W|| / ||W||.
  double error() {
    dequantize(DType::f32);
    double off = 0, all = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const float w = Bf16::decode(weight()[i]);
      off += static_cast<double>((values[i] - w) * (values[i] - w));
      all += static_cast<double>(w * w);
    }
    return std::sqrt(off / all);
  }

  /// Elements of every `step`-th tile further from the weight (after the transform) than the bound allows. `spoil`
  /// scales what came back.
  size_t violations(float spoil, size_t step) {
    size_t count = 0;
    std::vector<float> bound, back;
    const auto tiles = row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes));
    for (size_t t = 0; t < tiles.size(); t += step) {
      const RowRange& range = tiles[t];
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

  /// Whether the level computes what the scalar level does, within the bound; a bit flipped or a scale must not.
  bool agrees_with_scalar(Isa isa) {
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
        violations(1.25f, 1) > 0 && (codes[codes.size() / 2] ^= std::byte{1}) != expected_codes[codes.size() / 2];
    codes = expected_codes;
    return fast == narrow && violations(1, 1) == 0 && control;
  }
};

/// A row's format and options, for the weight and for the part of it that is checked against the scalar level.
struct Subject {
  std::string name;
  Layout layout, sample;
};

bool all_correct = true;

double seconds(Work& work, const std::string& what) {
  const double start = now();
  if (what == "quantize")
    work.quantize();
  else
    work.dequantize(what == "dequantize_f32" ? DType::f32 : DType::bf16);
  benchmark::ClobberMemory();
  return now() - start;
}

void measure(benchmark::State& state, const Subject& subject, int effort, const std::string& what, Isa isa) {
  const auto refuse = [&] {
    all_correct = false;
    state.SkipWithError("the answer is wrong");
  };
  if (!Work(subject.sample, effort).agrees_with_scalar(isa)) return refuse();
  const kernel::ScopedIsaCap cap(isa);
  Work work(subject.layout, effort), plain(subject.layout, 0);
  work.quantize();
  if (work.violations(1, 16) != 0) return refuse();
  const double error = work.error();

  int64_t bytes = kElements * (what == "dequantize_f32" ? 4 : 2);
  for (const StoredTensor& tensor : subject.layout.tensors) bytes += static_cast<int64_t>(tensor_bytes(tensor));
  seconds(work, what);  // memory touched for the first time is not part of it
  if (effort > 0) seconds(plain, what);
  double best = 1e9, best_plain = 1e9;
  for (auto _ : state) {
    const double time = seconds(work, what);
    best = std::min(best, time);
    state.SetIterationTime(time);
    if (effort > 0) best_plain = std::min(best_plain, seconds(plain, what));
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  // Best against best.
  const double copy_rate = static_cast<double>(kElements * 4) / copy_seconds();
  state.counters["best_GB/s"] = static_cast<double>(bytes) / best / 1e9;
  state.counters["MB"] = static_cast<double>(bytes) / 1e6;
  state.counters["of_copy_%"] = 100 * static_cast<double>(bytes) / best / copy_rate;
  std::string label = fmt::format("error {:.5f}", error);
  if (effort > 0) label += fmt::format(", {:.2f}x effort 0", best / best_plain);
  state.SetLabel(label);
}

/// Every format with its default options, and every alias whose options are others.
std::vector<Subject> subjects() {
  std::vector<Subject> list;
  for (const Format* format : all_formats()) {
    const auto add = [&](std::string_view name, const Options& given) {
      const Options options = complete_options(*format, given);
      const auto whole = format->describe({{kRows, kCols}, LayerKind::linear}, options).layout;
      const auto sample = format->describe({{kSampleRows, kCols}, LayerKind::linear}, options).layout;
      if (!whole || !sample) return;
      const bool known = std::any_of(list.begin(), list.end(), [&](const Subject& s) {
        return s.layout.format == format && s.layout.options == whole->options;
      });
      if (!known) list.push_back({std::string(name), *whole, *sample});
    };
    add(format->name, {});
    for (const Alias& alias : format->aliases) add(alias.name, parse_options(alias.options));
  }
  return list;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--inputs") {
    std::ofstream out(argv[2], std::ios::binary);
    out.write(reinterpret_cast<const char*>(weight().data()), static_cast<std::streamsize>(weight().size() * 2));
    out.close();
    return out ? 0 : 2;
  }
  bool all = false;
  argc = static_cast<int>(std::remove_if(argv + 1, argv + argc,
                                         [&](const char* arg) {
                                           const bool taken = std::string_view(arg) == "--all";
                                           all = all || taken;
                                           return taken;
                                         }) -
                          argv);
  // The first of an option counts least: a minimum given by the user comes later and wins.
  std::vector<char*> args(argv, argv + argc);
  std::string brief = "--benchmark_min_time=0.15";
  args.insert(args.begin() + 1, brief.data());
  int count = static_cast<int>(args.size());

  const std::vector<Subject> list = subjects();
  std::vector<Isa> levels = {kernel::active_isa()};
  for (const Isa isa : kernel::base_isas())
    if (all && kernel::enabled(isa) && isa != levels[0]) levels.push_back(isa);
  for (const Subject& subject : list)
    for (const Isa isa : levels) {
      const auto add = [&](const std::string& title, const std::string& what, int effort) {
        const std::string full = subject.name + "/" + title + "/" + std::string(kernel::name(isa));
        benchmark::RegisterBenchmark(
            full.c_str(),
            [&subject, what, effort, isa](benchmark::State& state) { measure(state, subject, effort, what, isa); })
            ->Unit(benchmark::kMillisecond)
            ->UseManualTime();
      };
      const int last_effort = !subject.layout.format->quantized ? 0 : all ? 2 : 1;
      for (int effort = 0; effort <= last_effort; ++effort)
        add("quantize_effort" + std::to_string(effort), "quantize", effort);
      add("dequantize_bf16", "dequantize_bf16", 0);
      add("dequantize_f32", "dequantize_f32", 0);
    }
  benchmark::Initialize(&count, args.data());
  if (benchmark::ReportUnrecognizedArguments(count, args.data())) return 2;
  const double copy = static_cast<double>(kElements * 4) / copy_seconds() / 1e9;
  benchmark::AddCustomContext("copy_GB/s", std::to_string(copy));
  std::printf("copy of 64 MB: %.2f GB/s in + out\n", copy);
  benchmark::RunSpecifiedBenchmarks();
  if (!all_correct) std::fputs("a format gave a wrong answer\n", stderr);
  return all_correct ? 0 : 1;
}
