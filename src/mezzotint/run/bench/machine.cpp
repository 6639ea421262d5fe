#include "mezzotint/run/bench/machine.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include <thread>

#include "mezzotint/io/platform.h"
#include "mezzotint/kernel/isa.h"

namespace mezzotint::run::bench {

Machine this_machine(c10::Device device) {
  const std::string processor = io::platform::proc_value("/proc/cpuinfo", "model name");
  return {.processor = processor.empty() ? "processor not named" : processor,
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
