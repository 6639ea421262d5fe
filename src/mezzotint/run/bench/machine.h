#pragma once
#include <c10/core/Device.h>

#include <string>

namespace mezzotint::run::bench {

/// What figures depend on besides the program.
struct Machine {
  std::string processor, isa, torch, capability;
  int cores = 0, threads = 0;
  std::string device;
};
Machine this_machine(c10::Device device);

/// Whether products of float16 run in float16 there and are not emulated: any GPU, processors with AVX-512 FP16.
bool computes_in_half(c10::Device device);

}  // namespace mezzotint::run::bench
