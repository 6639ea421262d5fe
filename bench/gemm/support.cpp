// One thread's products, and two threads' where it says so:
//     bench_gemm [--all] [--filter TEXT] [--cpu-time] [--seconds S] [--json]
// The quick choice ends within minutes; --all takes every shape. MEZZOTINT_ISA caps the instruction set. With
// `--filter -` standard input holds the filters, one a line; an empty line ends each one's rows.
//     bench_gemm --inputs FILE [COUNT]
// writes what the products multiply: the 256 MiB of weight_pool(), COUNT bf16 activations, COUNT int8 ones.
#include "gemm/support.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "mezzotint/base/bf16.h"
#include "mezzotint/kernel/gemm/peak.h"
#include "mezzotint/kernel/isa.h"

namespace mezzotint::bench {
namespace {

std::vector<void (*)(Report&)>& sections() {
  static std::vector<void (*)(Report&)> list;
  return list;
}

double now(bool cpu_time) {
  timespec t;
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Times {
  double best = 1e30, median = 0;
};

double seconds_of(const std::function<void()>& run, bool cpu_time) {
  const double begin = now(cpu_time);
  run();
  return now(cpu_time) - begin;
}

Times summary(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return {all.front(), all[all.size() / 2]};
}

/// At least three runs and `seconds`, at most a hundred. With `alone` its runs come between: the second result.
std::pair<Times, Times> times_of(const Row& row, const Options& options) {
  const bool cpu_time = options.cpu_time && row.threads == 1;
  std::vector<double> all, alone;
  double sum = 0;
  while (all.size() < 3 || (sum < options.seconds && all.size() < 100)) {
    all.push_back(seconds_of(row.run, cpu_time));
    sum += all.back();
    if (row.alone) alone.push_back(seconds_of(row.alone, false));
  }
  return {summary(std::move(all)), alone.empty() ? Times{} : summary(std::move(alone))};
}

/// Best rate of amount() per second.
double rate(const std::function<double()>& amount, bool cpu_time) {
  double best = 0;
  for (int i = 0; i < 12; ++i) {
    const double begin = now(cpu_time);
    const double done = amount();
    best = std::max(best, done / (now(cpu_time) - begin));
  }
  return best;
}

/// Brings every cache line of the pool in by one load each, `kStreams` places at a time.
template <size_t kStreams>
double read_pool() {
  const auto& pool = weight_pool();
  const size_t part = pool.size() / kStreams;
  uint64_t sum = 0;
  for (size_t i = 0; i + 64 <= part; i += 64)
    for (size_t s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, &pool[s * part + i], 8);
      sum += word;
    }
  asm volatile("" : : "r"(sum));
  return static_cast<double>(kStreams * part);
}

double add_in_order() {
  constexpr int kAdditions = 20'000'000;
  uint64_t x = 1;
  for (int i = 0; i < kAdditions / 8; ++i)
    asm volatile("add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0"
                 : "+r"(x));
  return kAdditions;
}

void print_json(const nlohmann::ordered_json& object) {
  fmt::print("{}\n", object.dump());
  std::fflush(stdout);
}

std::string percent(double part) {
  return fmt::format("{:.0f}%", 100 * part);
}

}  // namespace

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> list = {
      {"square", 3072, 3072},   {"Wan 5B up", 14336, 3072},  {"Wan 5B down", 3072, 14336},
      {"Wan 14B", 5120, 5120},  {"Wan 14B up", 13824, 5120}, {"Wan 14B down", 5120, 13824},
      {"Flux up", 12288, 3072}, {"Flux down", 3072, 12288},  {"T5 up", 10240, 4096},
      {"T5 down", 4096, 10240},
  };
  return list;
}

const std::vector<uint8_t>& weight_pool() {
  static const std::vector<uint8_t> pool = [] {
    std::vector<uint8_t> bytes(size_t{256} << 20);
    std::mt19937_64 rng(20240601);
    for (size_t i = 0; i < bytes.size(); i += 8) {
      const uint64_t word = rng();
      std::memcpy(&bytes[i], &word, 8);
    }
    return bytes;
  }();
  return pool;
}

const uint8_t* Rotation::next() {
  at_ += (bytes_ + 4095) / 4096 * 4096;
  if (at_ + bytes_ > static_cast<int64_t>(weight_pool().size())) at_ = 0;
  return current();
}

std::vector<float> activations(int64_t count) {
  std::mt19937_64 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> list(static_cast<size_t>(count));
  for (float& v : list) v = Bf16::decode(Bf16::encode(normal(rng)));
  return list;
}

std::vector<uint16_t> normals(int64_t count) {
  std::mt19937_64 rng(5);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> list(static_cast<size_t>(count));
  for (uint16_t& v : list) v = static_cast<uint16_t>(Bf16::encode(normal(rng)));
  return list;
}

std::string as_scalar_does(std::span<const std::byte> codes, const std::function<void()>& run, bool spoil) {
  std::vector<std::byte> found(codes.begin(), codes.end());
  if (spoil) found[found.size() / 4] ^= std::byte{1};
  const kernel::ScopedIsaCap cap(kernel::Isa::scalar);
  run();
  return std::equal(found.begin(), found.end(), codes.begin()) ? "exact" : "";
}

std::vector<int8_t> activation_codes(int64_t count) {
  std::mt19937_64 rng(7);
  std::vector<int8_t> list(static_cast<size_t>(count));
  for (int8_t& code : list) code = static_cast<int8_t>(rng());
  return list;
}

Section::Section(void (*rows)(Report&)) {
  sections().push_back(rows);
}

Report::Report(const Options& options) : options_(options) {
  using namespace kernel;
  const bool cpu = options.cpu_time;
  const auto peak = [&](int64_t (*loop)(int64_t)) {
    return rate([loop] { return static_cast<double>(loop(400'000)); }, cpu);
  };
  limits_ = {peak(peak_int8), peak(peak_bf16), peak(peak_f32),
             std::max({rate(read_pool<1>, cpu), rate(read_pool<4>, cpu), rate(read_pool<16>, cpu)}),
             rate(add_in_order, cpu)};
  if (options.json) {
    print_json({{"level", kernel::name(active_isa())},
                {"clock_GHz", limits_.cycles * 1e-9},
                {"int8_GOP/s", limits_.int8 * 1e-9},
                {"bf16_GOP/s", limits_.bf16 * 1e-9},
                {"f32_GOP/s", limits_.f32 * 1e-9},
                {"read_GB/s", limits_.read * 1e-9}});
    return;
  }
  const auto per_cycle = [&](double operations) { return operations / limits_.cycles; };
  fmt::print("level {}, clock {:.2f} GHz by dependent additions; one thread, from registers:\n",
             kernel::name(active_isa()), limits_.cycles * 1e-9);
  fmt::print("  int8 {:.0f} GOP/s ({:.0f} a cycle), bf16 {:.0f} ({:.0f}), f32 {:.0f} ({:.0f}); read {:.1f} GB/s\n\n",
             limits_.int8 * 1e-9, per_cycle(limits_.int8), limits_.bf16 * 1e-9, per_cycle(limits_.bf16),
             limits_.f32 * 1e-9, per_cycle(limits_.f32), limits_.read * 1e-9);
  fmt::print("{:<64} {:>9} {:>9} {:>8} {:>7} {:>14}  {}\n", "", "best ms", "median", "GOP/s", "GB/s", "of the limit",
             "answer");
}

void Report::add(const Row& row) {
  if (!wants(row.text)) return;
  row.run();
  std::string answer = row.check(false);
  if (answer.empty() || !row.check(true).empty()) {
    correct_ = false;
    const std::string wrong = answer.empty() ? "WRONG" : "WRONG: a spoiled answer passes";
    if (options_.json)
      print_json({{"row", row.text}, {"wrong", wrong}});
    else
      fmt::print("{:<64} {}\n", row.text, wrong);
    return;
  }
  const auto [times, alone] = times_of(row, options_);
  // Memory is shared by the threads, registers are not.
  const double by_peak = row.peak > 0 ? row.operations / (row.peak * row.threads) : 0;
  const double by_memory = row.bytes / limits_.read;
  const char* limit = by_peak > by_memory ? "peak" : "read";
  const double of_limit = std::max(by_peak, by_memory) / times.best;
  const double speedup = row.alone ? alone.median / times.median : 1;
  if (options_.json) {
    print_json({{"row", row.text},
                {"threads", row.threads},
                {"best_ms", 1e3 * times.best},
                {"median_ms", 1e3 * times.median},
                {"operations", row.operations},
                {"bytes", row.bytes},
                {"limit", limit},
                {"limit_ms", 1e3 * std::max(by_peak, by_memory)},
                {"of_limit", of_limit},
                {"of_one_thread", speedup},
                {"answer", answer}});
  } else {
    if (row.alone) answer += fmt::format("; {:.2f}x one thread", speedup);
    fmt::print("{:<64} {:>9.3f} {:>9.3f} {:>8.0f} {:>7.1f} {:>14}  {}\n", row.text, 1e3 * times.best,
               1e3 * times.median, row.operations / times.best * 1e-9, row.bytes / times.best * 1e-9,
               percent(of_limit) + " of " + limit, answer);
  }
  std::fflush(stdout);
}

}  // namespace mezzotint::bench

namespace {

using namespace mezzotint::bench;

void usage() {
  std::fputs(
      "usage: bench_gemm [--all] [--filter TEXT|-] [--cpu-time] [--seconds S] [--json]\n"
      "       bench_gemm --inputs FILE [COUNT]\n",
      stderr);
}

bool write_inputs(const std::string& file, int64_t count) {
  std::ofstream out(file, std::ios::binary);
  const auto write = [&](const auto& list) {
    out.write(reinterpret_cast<const char*>(list.data()),
              static_cast<std::streamsize>(list.size() * sizeof(list.front())));
  };
  std::vector<uint16_t> narrow;
  for (const float v : activations(count)) narrow.push_back(static_cast<uint16_t>(mezzotint::Bf16::encode(v)));
  write(weight_pool());
  write(narrow);
  write(activation_codes(count));
  out.close();
  if (!out) std::fprintf(stderr, "cannot write %s\n", file.c_str());
  return static_cast<bool>(out);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() >= 2 && args.size() <= 3 && args[0] == "--inputs") {
    const int64_t count = args.size() == 3 ? std::atoll(args[2].c_str()) : int64_t{1} << 20;
    return count > 0 && write_inputs(args[1], count) ? 0 : 2;
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const bool more = i + 1 < args.size();
    if (args[i] == "--all") {
      options.all = true;
    } else if (args[i] == "--cpu-time") {
      options.cpu_time = true;
    } else if (args[i] == "--json") {
      options.json = true;
    } else if (args[i] == "--filter" && more) {
      options.filter = args[++i];
    } else if (args[i] == "--seconds" && more && std::atof(args[i + 1].c_str()) > 0) {
      options.seconds = std::atof(args[++i].c_str());
    } else {
      usage();
      return 2;
    }
  }
  Report report(options);
  const auto all_sections = [&] {
    for (const auto& rows : sections()) rows(report);
  };
  if (options.filter != "-") all_sections();
  for (std::string line; options.filter == "-" && std::getline(std::cin, line);) {
    report.set_filter(line);
    all_sections();
    std::puts("");
    std::fflush(stdout);
  }
  if (!report.correct()) std::fputs("a product gave a wrong answer\n", stderr);
  return report.correct() ? 0 : 1;
}
