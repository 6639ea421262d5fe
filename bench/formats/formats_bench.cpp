// Speed of every format in the table on one thread: quantize at effort 0 and 1, and dequantize to bf16, of a weight of
// 64 MB in bf16, tile by tile as the converter does it. A row is GB/s (bytes read of the input and written of the
// output, once each: the amax pass is in the time, not in the bytes), percent of memcpy of as much, timed in turn with
// it, and the error ||Q - W|| / ||W||. What comes back is checked against the format's own bound before anything is
// timed; a copy spoilt on purpose must fail the same check.
//
//     bench_formats [FILTER] [REPEATS]        FILTER is a part of a format's name
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
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

constexpr int64_t kRows = 8192, kCols = 4096;
constexpr size_t kBytes = size_t{kRows} * kCols * 2;
constexpr int64_t kTileBytes = 256 << 10;  // what the converter's tiles come down to in the second-level cache

std::vector<uint16_t> make_weight() {
  std::mt19937_64 rng(20240601);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<uint16_t> period((1 << 20) + 7), weight(size_t{kRows} * kCols);
  for (uint16_t& x : period) x = static_cast<uint16_t>(Bf16::encode(normal(rng)));
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = period[i % period.size()];
  return weight;
}

Tile tile_of(const std::vector<uint16_t>& weight, const RowRange& range) {
  return {weight.data() + range.row0 * kCols, DType::bf16, range.row0, range.rows, 0, kCols, kCols};
}

/// All passes and the codes, as convert::Pipeline goes over a weight.
void quantize_into(const Layout& layout, const std::vector<uint16_t>& weight, int effort, Parameters& parameters) {
  const Format& format = *layout.format;
  const ChooseOptions choose{.effort = effort};
  const ChoosePlan plan = format.choose_plan != nullptr ? format.choose_plan(layout, choose) : ChoosePlan{.passes = 0};
  static std::vector<float> stats, scratch;
  stats.assign(plan.stats, 0.0f);
  const auto tiles = row_tiles(layout, rows_per_tile(layout, DType::bf16, kTileBytes));
  const auto codes_of = [&](const RowRange& range) {
    return parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes;
  };
  for (int pass = 0; pass < plan.passes; ++pass) {
    const bool encodes = plan.fused && pass + 1 == plan.passes;
    for (const RowRange& range : tiles) {
      const Tile tile = prepare_tile(layout, tile_of(weight, range), scratch);
      format.observe(layout, choose, pass, tile, stats.data(), parameters);
      if (encodes) format.encode(layout, parameters, tile, {}, codes_of(range));
    }
    if (format.finish != nullptr && !encodes) format.finish(layout, choose, pass, stats.data(), parameters);
  }
  if (plan.passes > 0 && plan.fused) return;
  for (const RowRange& range : tiles)
    format.encode(layout, parameters, prepare_tile(layout, tile_of(weight, range), scratch), {}, codes_of(range));
}

/// To bf16, through float32 tiles that stay in the second-level cache.
void dequantize_into(const Layout& layout, const Parameters& parameters, std::vector<uint16_t>& out) {
  static std::vector<float> values;
  for (const RowRange& range : row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes))) {
    values.resize(static_cast<size_t>(range.rows * kCols));
    decode_rows(layout, parameters, range.row0, range.rows,
                parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes, values.data());
    kernel::cast({values.data(), DType::f32, range.rows, kCols, kCols}, DType::bf16, out.data() + range.row0 * kCols,
                 kCols);
  }
}

struct Answer {
  bool within_bound = true;
  double error = 0;  ///< ||Q - W|| / ||W||
};

/// Decodes tile by tile and compares with the source, both as the codes see them (after a rotation); `factor` spoils
/// what was decoded.
Answer check(const Layout& layout, const std::vector<uint16_t>& weight, const Parameters& parameters, float factor) {
  Answer answer;
  double error = 0, norm = 0;
  std::vector<float> wide, decoded, bounds;
  for (const RowRange& range : row_tiles(layout, rows_per_tile(layout, DType::f32, kTileBytes))) {
    Tile tile = float_tile(tile_of(weight, range), wide);
    if (layout.transformed) layout.format->transform(layout, wide.data(), tile.rows, false);
    decoded.resize(wide.size());
    bounds.resize(wide.size());
    layout.format->decode(layout, parameters, range.row0, range.rows, 0, kCols,
                          parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes,
                          decoded.data(), kCols);
    layout.format->error_bound(layout, parameters, tile, bounds.data());
    for (size_t i = 0; i < wide.size(); ++i) {
      const double w = wide[i], d = static_cast<double>(decoded[i] * factor) - w;
      answer.within_bound &= std::abs(d) <= static_cast<double>(bounds[i]);
      error += d * d;
      norm += w * w;
    }
  }
  answer.error = std::sqrt(error / norm);
  return answer;
}

double seconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Rate {
  double gb_per_s = 0, of_copy = 0;
};

/// Best of some runs, and of copies made between them.
Rate measure(size_t bytes, int repeats, const std::vector<uint16_t>& weight, std::vector<uint16_t>& out,
             const std::function<void()>& run) {
  double best = 1e9, copy = 1e9;
  run();
  for (int i = 0; i < repeats; ++i) {
    copy = std::min(copy, seconds([&] { std::memcpy(out.data(), weight.data(), kBytes); }));
    best = std::min(best, seconds(run));
  }
  const double rate = static_cast<double>(bytes) / best / 1e9, limit = 2.0 * static_cast<double>(kBytes) / copy / 1e9;
  return {rate, 100 * rate / limit};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string filter = argc > 1 ? argv[1] : "";
  const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 7;
  const std::vector<uint16_t> weight = make_weight();
  std::vector<uint16_t> out(weight.size());
  std::memcpy(out.data(), weight.data(), kBytes);
  double copy = 1e9;
  for (int i = 0; i < repeats; ++i)
    copy = std::min(copy, seconds([&] { std::memcpy(out.data(), weight.data(), kBytes); }));
  fmt::print("one thread, {}, weight [{}, {}] bf16; memcpy {:.1f} GB/s in + out\n", kernel::name(kernel::active_isa()),
             kRows, kCols, 2.0 * static_cast<double>(kBytes) / copy / 1e9);
  fmt::print("{:<26}{:>9}{:>22}{:>22}{:>22}{:>10}{:>10}\n", "format", "bits", "effort 0", "effort 1", "to bf16",
             "error 0", "error 1");
  bool correct = true;
  for (const Format* format : all_formats()) {
    if (format->name.find(filter) == std::string_view::npos) continue;
    const auto description = format->describe({{kRows, kCols}, LayerKind::linear}, complete_options(*format, {}));
    if (!description.layout) {
      fmt::print("{:<26} not written: {}\n", format->name, description.refusal);
      continue;
    }
    const Layout& layout = *description.layout;
    size_t stored = 0;
    for (const StoredTensor& tensor : layout.tensors) stored += tensor_bytes(tensor);
    Parameters parameters = new_parameters(layout);
    parameters.tensors[0].resize(codes_bytes(layout));
    Rate rates[2], back;
    Answer answers[2];
    bool sound = true;
    for (const int effort : {0, 1}) {
      quantize_into(layout, weight, effort, parameters);
      answers[effort] = check(layout, weight, parameters, 1.0f);
      sound &= answers[effort].within_bound && !check(layout, weight, parameters, 1.25f).within_bound;
      if (!sound) break;
      rates[effort] =
          measure(kBytes + stored, repeats, weight, out, [&] { quantize_into(layout, weight, effort, parameters); });
      if (effort == 0)
        back = measure(kBytes + stored, repeats, weight, out, [&] { dequantize_into(layout, parameters, out); });
    }
    if (!sound) {
      fmt::print("{:<26} WRONG ANSWER\n", format->name);
      correct = false;
      continue;
    }
    const auto text = [](const Rate& rate) {
      return fmt::format("{:.1f} GB/s {:4.0f} %", rate.gb_per_s, rate.of_copy);
    };
    fmt::print("{:<26}{:>9.3f}{:>22}{:>22}{:>22}{:>10.5f}{:>10.5f}\n", format->name,
               8.0 * static_cast<double>(stored) / static_cast<double>(weight.size()), text(rates[0]), text(rates[1]),
               text(back), answers[0].error, answers[1].error);
    std::fflush(stdout);
  }
  return correct ? 0 : 1;
}
