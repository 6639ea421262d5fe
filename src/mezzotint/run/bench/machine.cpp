#include "mezzotint/run/bench/machine.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include <fstream>
#include <thread>

#include "mezzotint/kernel/isa.h"

namespace mezzotint::run::bench {
namespace {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const size_t colon = line.find(": "); colon != std::string::npos) return line.substr(colon + 2);
  return "processor not named";
}

}  // namespace

Machine this_machine(c10::Device device) {
  return {.processor = processor(),
          .isa = std::string(kernel::name(kernel::active_isa())),
          .torch = TORCH_VERSION,
          .capability = at::get_cpu_capability(),
          .cores = static_cast<int>(std::thread::hardware_concurrency()),
          .threads = at::get_num_threads(),
          .device = device.str()};
}

bool computes_in_half(c10::Device device) {
  if (!device.is_cpu()) return true;
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512fp16") != 0;
#else
  return false;
#endif
}

}  // namespace mezzotint::run::bench
