// What adapters beside a layer cost: LoRAs of rank 32 beside a linear layer 3072 x 3072, inputs in bfloat16, in units
// of what torch's linear takes in bfloat16.
//   bench_bypass [--m 1024,4096] [--rounds 60] [--threads N] [--rank 32] [--cpu-time] [--check]
//
// Layers with none, one and three adapters, and one whose strength changes before every call, take turns; figures are
// medians over the rounds. One adapter may add 12 %, three 16 %; exit code 1 where an answer is wrong or, with --check,
// where they add more.
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <torch/nn/modules/linear.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "mezzotint/nn/bypass/bypass.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace {

using namespace mezzotint;

constexpr int64_t kSize = 3072;
constexpr double kLimits[] = {0, 0.12, 0, 0.16};
/// What counts as nothing, of the layer with an adapter: the measurement's own noise.
constexpr double kSwitchLimit = 0.02;

struct Arguments {
  std::vector<int64_t> m = {1024, 4096};
  int rounds = 60, threads = 0;
  bool cpu_time = false, check = false;
  int64_t rank = 32;
};

double milliseconds(bool of_thread) {
  timespec now{};
  clock_gettime(of_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

/// A layer, and what beside it.
struct Subject {
  torch::nn::Module root;
  torch::nn::Linear layer{nullptr};
  std::unique_ptr<nn::Bypass> bypass;
  std::vector<nn::Bypass::Id> ids;
  bool switches = false;
  double strength = 1;
  std::vector<double> times;

  Subject(const at::Tensor& weight, const std::vector<nn::LayerAdapter>& adapters, bool switches_strength)
      : switches(switches_strength) {
    layer = torch::nn::Linear(torch::nn::LinearOptions(kSize, kSize).bias(false));
    root.register_module("layer", layer);
    nn::place_in_torch_module(*layer, "weight", weight);
    if (adapters.empty()) return;
    bypass = std::make_unique<nn::Bypass>(root);
    for (const nn::LayerAdapter& adapter : adapters) ids.push_back(bypass->attach("layer", adapter));
  }

  at::Tensor forward(const at::Tensor& x) {
    if (switches) {
      strength = strength == 1 ? 0.5 : 1;
      for (const auto id : ids) bypass->set_strength(id, strength);
    }
    return layer->forward(x);
  }

  void time(const at::Tensor& x, bool of_thread) {
    const double begin = milliseconds(of_thread);
    forward(x);
    times.push_back(milliseconds(of_thread) - begin);
  }

  double median() const {
    std::vector<double> sorted = times;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

double relative(const at::Tensor& got, const at::Tensor& expected) {
  return ((got.to(at::kFloat) - expected).norm() / expected.norm()).item<double>();
}

nn::LayerAdapter random_lora(int64_t rank) {
  nn::LayerAdapter lora;
  lora.factors["lora_up"] = (at::randn({kSize, rank}) * 0.05).to(at::kBFloat16);
  lora.factors["lora_down"] = (at::randn({rank, kSize}) * 0.05).to(at::kBFloat16);
  lora.alpha = static_cast<double>(rank);
  return lora;
}

/// Whether the answers are right: those of the decoded weight with the deltas added, and not those of it alone.
bool right(Subject& plain, Subject& with, const std::vector<nn::LayerAdapter>& adapters, const at::Tensor& x) {
  at::Tensor weight = tensor::dequantized(plain.layer->weight).to(at::kFloat);
  const at::Tensor base = at::linear(x.to(at::kFloat), weight);
  for (const nn::LayerAdapter& adapter : adapters)
    weight =
        weight + at::mm(adapter.factors.at("lora_up").to(at::kFloat), adapter.factors.at("lora_down").to(at::kFloat));
  const at::Tensor got = with.forward(x);
  return relative(got, at::linear(x.to(at::kFloat), weight)) < 0.02 && relative(got, base) > 0.1;
}

bool measure(const Arguments& arguments, int64_t m, const std::string& format, double* bf16_ms) {
  const at::Tensor x = at::randn({m, kSize}).to(at::kBFloat16);
  const at::Tensor values = (at::randn({kSize, kSize}) * 0.02).to(at::kBFloat16);
  const at::Tensor weight = format == "bf16" ? values : tensor::from_float(values, format);
  std::vector<nn::LayerAdapter> three;
  for (int i = 0; i < 3; ++i) three.push_back(random_lora(arguments.rank));
  const std::vector<nn::LayerAdapter> one = {three[0]};

  Subject none(weight, {}, false), single(weight, one, false), triple(weight, three, false),
      switched(weight, one, true);
  if (!right(none, single, one, x) || !right(none, triple, three, x)) {
    fmt::print("{} at M = {}: an answer is wrong\n", format, m);
    return false;
  }
  bool good = true;
  Subject* const all[] = {&none, &single, &triple, &switched};
  for (int round = -2; round < arguments.rounds; ++round)
    for (int turn = 0; turn < 4; ++turn) {
      Subject& subject = *all[(turn + round + 4) % 4];
      subject.time(x, arguments.cpu_time);
      if (round < 0) subject.times.clear();
    }
  if (format == "bf16") *bf16_ms = none.median();

  const auto row = [&](const char* what, const Subject& subject, double added, double limit) {
    const bool within = added <= limit;
    fmt::print("{:<6} {:<10} {:<26} {:>9.3f} {:>+9.1f} % {:>6.0f} % {:>6}\n", m, format, what, subject.median(),
               100 * added, 100 * limit, within ? "pass" : "FAIL");
    return within;
  };
  fmt::print("{:<6} {:<10} {:<26} {:>9.3f}\n", m, format, "no adapter", none.median());
  good &= row("one", single, (single.median() - none.median()) / *bf16_ms, kLimits[1]);
  good &= row("three", triple, (triple.median() - none.median()) / *bf16_ms, kLimits[3]);
  good &=
      row("one, strength switched", switched, (switched.median() - single.median()) / single.median(), kSwitchLimit);
  return good || !arguments.check;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("What adapters beside a layer cost", "bench_bypass");
  app.add_option("--m", arguments.m, "Rows of inputs")->delimiter(',')->check(CLI::Range(1, 1 << 20));
  app.add_option("--rounds", arguments.rounds)->check(CLI::Range(1, 100000));
  app.add_option("--rank", arguments.rank)->check(CLI::Range(1, 1024));
  app.add_option("--threads", arguments.threads, "Default: as many as libtorch takes")->check(CLI::Range(1, 1024));
  app.add_flag("--cpu-time", arguments.cpu_time,
               "Time of the thread (with --threads 1): where others use the machine too");
  app.add_flag("--check", arguments.check, "Exit code 1 where a limit is exceeded");
  CLI11_PARSE(app, argc, argv);
  if (arguments.cpu_time && arguments.threads != 1) {
    fmt::print(stderr, "--cpu-time is for --threads 1\n");
    return 2;
  }
  const c10::InferenceMode guard;
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  fmt::print(
      "LoRAs of rank {} beside 3072 x 3072, x in bf16, {} threads, medians of {} rounds; added: of torch's linear in "
      "bf16\n"
      "{:<6} {:<10} {:<26} {:>9} {:>11} {:>8}\n",
      arguments.rank, at::get_num_threads(), arguments.rounds, "M", "base", "adapters", "ms", "added", "limit");
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  bool good = true;
  for (const int64_t m : arguments.m) {
    double bf16_ms = 0;
    // names a format: the one that the target is stated for
    for (const std::string format : {"bf16", "int8_row"}) good &= measure(arguments, m, format, &bf16_ms);
  }
  return good ? 0 : 1;
}
