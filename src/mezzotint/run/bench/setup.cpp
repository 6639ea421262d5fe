#include "mezzotint/run/bench/setup.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <torch/version.h>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::run::bench {
namespace {

constexpr int64_t kOnProcessor = 4096, kQuick = 256;  // tokens

// Wan 2.2: 5B makes 121 frames of 1280 x 704 from 31 x 22 x 40 tokens, 14B 81 frames of 832 x 480 from 21 x 30 x 52.
Setup::Model published(const std::string& name) {
  if (name == "5b")
    return {"Wan2.2 5B",
            {.width = 3072, .feed_forward = 14336, .layers = 30, .heads = 24, .channels_in = 48, .channels_out = 48},
            27280};
  return {"Wan2.2 14B", {.width = 5120, .feed_forward = 13824, .layers = 40, .heads = 40}, 32760};
}

Setup::Model model(const std::string& name) {
  if (name == "5b" || name == "14b") return published(name);
  const auto cross = name.find('x');
  const auto number = [&](const std::string& text) {
    size_t used = 0;
    try {
      const int64_t value = std::stoll(text, &used);
      if (used == text.size() && value > 0 && value <= 1 << 20) return value;
    } catch (const std::logic_error&) {  // handled as the values out of range are
    }
    return int64_t{0};
  };
  const int64_t width = cross == std::string::npos ? 0 : number(name.substr(0, cross));
  const int64_t feed = cross == std::string::npos ? 0 : number(name.substr(cross + 1));
  if (width == 0 || width % 128 != 0 || feed == 0)
    throw Error({.name = "bad-option",
                 .problem = "no such model",
                 .expected = "5b, 14b, or a width that divides by 128 and a feed-forward width: 256x512",
                 .found = name});
  return {name, {.width = width, .feed_forward = feed, .layers = 2, .heads = width / 128}, 4096};
}

c10::Device device(const std::string& name) {
  if (name == "cpu") return c10::kCPU;
  if (!at::hasCUDA())
    throw Error({.name = "no-gpu",
                 .problem = fmt::format("this libtorch ({}) finds no NVIDIA GPU", TORCH_VERSION),
                 .expected = "--device cpu, or a build against a PyTorch with CUDA on a machine with a GPU"});
  return {c10::kCUDA, 0};
}

}  // namespace

Setup set_up(const Arguments& arguments) {
  Setup setup{.clock = {c10::kCPU, arguments.seconds, arguments.rounds, arguments.cpu_time}};
  setup.fp32 = arguments.fp32;
  setup.clock.device = setup.device = device(arguments.device);
  if (arguments.cpu_time && (arguments.threads != 1 || !setup.device.is_cpu()))
    throw Error({.name = "bad-option", .problem = "--cpu-time is the time of one thread: give --threads 1 on a CPU"});
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  for (const std::string& name : arguments.models) {
    if (arguments.quick && arguments.models.size() > 1 && name == "14b") continue;
    setup.models.push_back(model(name));
    int64_t& tokens = setup.models.back().long_sequence;
    if (setup.device.is_cpu()) tokens = arguments.quick ? kQuick : kOnProcessor;
    tokens = arguments.tokens.value_or(tokens);
  }
  setup.formats = arguments.formats;
  for (const std::string& label : setup.formats) formats::select_format(label);  // throws where there is none
  if (setup.formats.empty())
    for (const formats::Format* format : formats::all_formats())
      if (format->quantized && format->writable) setup.formats.emplace_back(format->name);
  return setup;
}

at::Tensor normal(at::IntArrayRef shape, double deviation, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat))
      .mul_(deviation);
}

double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor exact = expected.to(at::kDouble);
  const at::Tensor difference = got.to(at::kDouble) - exact;
  return (at::linalg_vector_norm(difference) / at::linalg_vector_norm(exact)).item<double>();
}

}  // namespace mezzotint::run::bench
