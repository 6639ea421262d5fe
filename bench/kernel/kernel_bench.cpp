// Single-thread throughput of every kernel at an instruction-set level the machine has, for a source that stays in
// the L2 cache (256 KiB) and one that does not fit any cache (256 MiB). bytes_per_second counts what is read and
// written; "copy" is memcpy. A kernel whose output differs from the scalar level's is not timed and the program fails.
//
//     bench_kernel --benchmark_filter=e4m3 [--all]
//
// Without a filter only the highest level runs, unless --all asks for every one.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/fp16.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/decode.h"
#include "mezzotint/kernel/encode.h"
#include "mezzotint/kernel/hadamard.h"
#include "mezzotint/kernel/reduce.h"
#include "mezzotint/kernel/transpose.h"

namespace {

using namespace mezzotint;
using namespace mezzotint::kernel;

constexpr int64_t kCols = 4096;
constexpr int64_t kLargest = int64_t{256} << 20;

/// Weights of one dtype, and room for any result.
struct Buffers {
  std::vector<uint8_t> source, result;
  int64_t rows = 0;
};

struct Operation {
  std::string name;
  int source_bytes;  ///< per element
  int result_bytes;  ///< per element; 0 = a few scalars
  DType source;      ///< what the weights are stored as; u8 = any code
  std::function<void(const Source& x, uint8_t* out)> run;
};

const float kMultiplier = 4000.0f, kScale = 0.0004f;
const std::vector<float> kBlockScales(1 << 20, kScale);

std::vector<Operation> operations() {
  std::vector<Operation> list;
  const auto add = [&](std::string name, DType source, int result_bytes, auto run) {
    const int bytes = source == DType::f32 ? 4 : source == DType::u8 ? 1 : 2;
    list.push_back({std::move(name), bytes, result_bytes, source, run});
  };
  add("copy", DType::bf16, 2,
      [](const Source& x, uint8_t* out) { std::memcpy(out, x.data, static_cast<size_t>(x.rows * x.cols * 2)); });
  for (const auto& [label, dtype] :
       {std::pair{"f32", DType::f32}, std::pair{"bf16", DType::bf16}, std::pair{"f16", DType::f16}}) {
    const std::string from = label;
    add("amax/" + from, dtype, 0, [](const Source& x, uint8_t* out) {
      const Amax result = amax(x);
      std::memcpy(out, &result.value, 4);
    });
    add("amax_rows/" + from, dtype, 0,
        [](const Source& x, uint8_t* out) { amax_rows(x, reinterpret_cast<float*>(out)); });
    add("amax_blocks128/" + from, dtype, 0,
        [](const Source& x, uint8_t* out) { amax_blocks(x, 128, 128, reinterpret_cast<float*>(out), kCols / 128); });
    add("e4m3/" + from, dtype, 1,
        [](const Source& x, uint8_t* out) { encode_fp8(x, Scales::scalar(&kMultiplier), DType::f8_e4m3, out, kCols); });
    add("e5m2/" + from, dtype, 1,
        [](const Source& x, uint8_t* out) { encode_fp8(x, Scales::scalar(&kMultiplier), DType::f8_e5m2, out, kCols); });
    add("e4m3_stochastic/" + from, dtype, 1, [](const Source& x, uint8_t* out) {
      encode_fp8(x, Scales::scalar(&kMultiplier), DType::f8_e4m3, out, kCols, Rounding::stochastic(1, "bench"),
                 {0, kCols});
    });
    add("int8/" + from, dtype, 1, [](const Source& x, uint8_t* out) {
      encode_int8(x, Scales::scalar(&kScale), -128, reinterpret_cast<int8_t*>(out), kCols);
    });
    add("int8_blocks128/" + from, dtype, 1, [](const Source& x, uint8_t* out) {
      encode_int8(x, Scales::blocks(kBlockScales.data(), kCols / 128, 128, 128), -127, reinterpret_cast<int8_t*>(out),
                  kCols);
    });
    for (const auto& [target, to] :
         {std::pair{"f32", DType::f32}, std::pair{"bf16", DType::bf16}, std::pair{"f16", DType::f16}}) {
      if (to == dtype) continue;
      add("cast/" + from + "_" + target, dtype, to == DType::f32 ? 4 : 2,
          [to = to](const Source& x, uint8_t* out) { cast(x, to, out, kCols); });
    }
  }
  for (const auto& [label, dtype] : {std::pair{"e4m3", DType::f8_e4m3}, std::pair{"e5m2", DType::f8_e5m2}})
    add(std::string("decode/") + label, DType::u8, 4, [dtype = dtype](const Source& x, uint8_t* out) {
      decode_fp8(static_cast<const uint8_t*>(x.data), dtype, x.rows, kCols, kCols, Scales::scalar(&kScale),
                 reinterpret_cast<float*>(out), kCols);
    });
  add("decode/int8", DType::u8, 4, [](const Source& x, uint8_t* out) {
    decode_int8(static_cast<const int8_t*>(x.data), x.rows, kCols, kCols, Scales::scalar(&kScale),
                reinterpret_cast<float*>(out), kCols);
  });
  add("copy/f32", DType::f32, 4,
      [](const Source& x, uint8_t* out) { std::memcpy(out, x.data, static_cast<size_t>(x.rows * x.cols * 4)); });
  // In place on a tile of 64 KiB that was just copied: compare with copy/f32.
  for (const int64_t group : {4, 16, 64, 256, 1024, 4096})
    for (const bool convrot : {true, false})
      add((convrot ? "copy+convrot/" : "copy+sylvester/") + std::to_string(group), DType::f32, 4,
          [group, convrot](const Source& x, uint8_t* out) {
            auto* values = reinterpret_cast<float*>(out);
            constexpr int64_t kTile = 16 << 10;
            for (int64_t i = 0; i < x.rows * x.cols; i += kTile) {
              std::memcpy(values + i, static_cast<const float*>(x.data) + i, kTile * 4);
              if (convrot) rotate_convrot(values + i, kTile, group);
              if (!convrot) rotate_sylvester(values + i, kTile, group);
            }
          });
  for (const auto& [bytes, dtype] : {std::pair{1, DType::u8}, std::pair{2, DType::bf16}, std::pair{4, DType::f32}})
    add("transpose/" + std::to_string(bytes), dtype, bytes, [bytes = bytes](const Source& x, uint8_t* out) {
      transpose(x.data, x.rows, kCols, kCols, out, x.rows, bytes);
    });
  return list;
}

void fill(std::vector<uint8_t>& source, int64_t count, DType dtype) {
  std::mt19937 rng(20240601);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> period(1 << 18);
  for (float& x : period) x = normal(rng);
  for (int64_t i = 0; i < count; ++i) {
    const float x = period[static_cast<size_t>(i + i / (1 << 18)) % period.size()];
    const auto half = static_cast<uint16_t>(dtype == DType::bf16 ? Bf16::encode(x) : Fp16::encode(x));
    if (dtype == DType::f32) std::memcpy(&source[static_cast<size_t>(i * 4)], &x, 4);
    if (dtype == DType::bf16 || dtype == DType::f16) std::memcpy(&source[static_cast<size_t>(i * 2)], &half, 2);
    if (dtype == DType::u8) source[static_cast<size_t>(i)] = static_cast<uint8_t>(i * 167 + i / 4096);
  }
}

/// Bytes of the result that mean something.
int64_t result_size(const Operation& op, const Source& x) {
  if (op.result_bytes > 0) return x.rows * x.cols * op.result_bytes;
  if (op.name.starts_with("amax_rows")) return x.rows * 4;
  return op.name.starts_with("amax_blocks") ? (x.rows + 127) / 128 * (kCols / 128) * 4 : 4;
}

/// Whether the level in force writes what the scalar level writes. `spoil` flips one bit: the check must then fail.
bool agrees_with_scalar(const Operation& op, const Source& x, std::vector<uint8_t>& result, bool spoil) {
  const auto size = static_cast<size_t>(result_size(op, x));
  {
    const ScopedIsaCap cap(Isa::scalar);
    op.run(x, result.data());
  }
  const std::vector<uint8_t> expected(result.begin(), result.begin() + static_cast<int64_t>(size));
  std::fill_n(result.begin(), size, uint8_t{0xEE});
  op.run(x, result.data());
  if (spoil) result[size / 2] ^= 1;
  return size > 0 && std::memcmp(result.data(), expected.data(), size) == 0;
}

bool all_correct = true;

void measure(benchmark::State& state, const Operation& op, Isa isa, int64_t bytes) {
  static std::vector<uint8_t> source(static_cast<size_t>(kLargest)), result(static_cast<size_t>(kLargest));
  static DType filled = DType::boolean;
  if (op.result_bytes > op.source_bytes) bytes = bytes / op.result_bytes * op.source_bytes;
  const int64_t rows = bytes / op.source_bytes / kCols;
  if (filled != op.source) fill(source, kLargest / op.source_bytes, op.source);
  filled = op.source;
  const Source x{source.data(), op.source, rows, kCols, kCols};

  const ScopedIsaCap cap(isa);
  if (compiled_isa() != isa || !agrees_with_scalar(op, x, result, false) || agrees_with_scalar(op, x, result, true)) {
    all_correct = false;
    state.SkipWithError("the answer differs from the scalar level's");
    return;
  }
  for (auto _ : state) {
    op.run(x, result.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * rows * kCols *
                          (op.source_bytes + op.result_bytes));
  state.SetLabel(std::string(name(isa)));
}

}  // namespace

int main(int argc, char** argv) {
  bool all = false;
  std::vector<char*> args;
  for (int i = 0; i < argc; ++i) {
    const bool taken = std::string_view(argv[i]) == "--all";
    all = all || taken;
    if (!taken) args.push_back(argv[i]);
  }
  // What the user gives comes later and wins.
  std::string brief = "--benchmark_min_time=0.1", highest;
  args.insert(args.begin() + 1, brief.data());
  int count = static_cast<int>(args.size());

  static const std::vector<Operation> list = operations();
  for (const Operation& op : list)
    for (const Isa isa : base_isas())
      for (const auto& [label, bytes] : {std::pair{"256KiB", int64_t{256} << 10}, std::pair{"256MiB", kLargest}}) {
        if (!enabled(isa)) continue;
        highest = name(isa);
        const std::string title = op.name + "/" + label + "/" + std::string(name(isa));
        benchmark::RegisterBenchmark(
            title.c_str(), [&op, isa, bytes = bytes](benchmark::State& state) { measure(state, op, isa, bytes); });
      }
  benchmark::Initialize(&count, args.data());
  if (benchmark::ReportUnrecognizedArguments(count, args.data())) return 2;
  const std::string asked = benchmark::GetBenchmarkFilter();
  if (!all && (asked.empty() || asked == "." || asked == "all")) benchmark::SetBenchmarkFilter("/" + highest + "$");
  benchmark::RunSpecifiedBenchmarks();
  if (!all_correct) std::fputs("a kernel gave a wrong answer\n", stderr);
  return all_correct ? 0 : 1;
}
