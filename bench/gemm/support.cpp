// One thread's products, and two threads' where it says so:
//     bench_gemm [--all] [--filter TEXT] [--cpu-time]
// The quick choice ends within minutes; --all takes every shape. MEZZOTINT_ISA caps the instruction set.
#include "gemm/support.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

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

/// At least three runs and a third of a second, at most a hundred.
Times time_of(const std::function<void()>& run, bool cpu_time) {
  std::vector<double> all;
  double sum = 0;
  while (all.size() < 3 || (sum < 0.35 && all.size() < 100)) {
    const double begin = now(cpu_time);
    run();
    all.push_back(now(cpu_time) - begin);
    sum += all.back();
  }
  std::sort(all.begin(), all.end());
  return {all.front(), all[all.size() / 2]};
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
  const std::string answer = row.check(false);
  if (answer.empty() || !row.check(true).empty()) {
    correct_ = false;
    fmt::print("{:<64} WRONG{}\n", row.text, answer.empty() ? "" : ": a spoiled answer passes");
    return;
  }
  const Times times = time_of(row.run, options_.cpu_time && row.threads == 1);
  // Memory is shared by the threads, registers are not.
  const double by_peak = row.peak > 0 ? row.operations / (row.peak * row.threads) : 0;
  const double by_memory = row.bytes / limits_.read;
  fmt::print("{:<64} {:>9.3f} {:>9.3f} {:>8.0f} {:>7.1f} {:>14}  {}\n", row.text, 1e3 * times.best, 1e3 * times.median,
             row.operations / times.best * 1e-9, row.bytes / times.best * 1e-9,
             percent(std::max(by_peak, by_memory) / times.best) + (by_peak > by_memory ? " of peak" : " of read"),
             answer);
  std::fflush(stdout);
}

}  // namespace mezzotint::bench

int main(int argc, char** argv) {
  using namespace mezzotint::bench;
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--all") {
      options.all = true;
    } else if (arg == "--cpu-time") {
      options.cpu_time = true;
    } else if (arg == "--filter" && i + 1 < argc) {
      options.filter = argv[++i];
    } else {
      std::fputs("usage: bench_gemm [--all] [--filter TEXT] [--cpu-time]\n", stderr);
      return 2;
    }
  }
  Report report(options);
  for (const auto& rows : sections()) rows(report);
  if (!report.correct()) std::fputs("a product gave a wrong answer\n", stderr);
  return report.correct() ? 0 : 1;
}
