#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mezzotint/models/wan/config.h"
#include "mezzotint/run/bench/arguments.h"
#include "mezzotint/run/bench/table.h"

namespace mezzotint::run::bench {

/// What the arguments come to.
struct Setup {
  struct Model {
    std::string name;
    models::wan::Config config;
    int64_t long_sequence;  ///< tokens
  };
  std::vector<Model> models;
  std::vector<std::string> formats;
  c10::Device device = c10::kCPU;
  bool fp32 = true;
  Clock clock;
};
Setup set_up(const Arguments& arguments);

/// Normal values, the same ones at every call: made in float32 on the CPU by libtorch's generator seeded with `seed`.
at::Tensor normal(at::IntArrayRef shape, double deviation, uint64_t seed);
/// ||got - expected|| / ||expected||
double relative_error(const at::Tensor& got, const at::Tensor& expected);

}  // namespace mezzotint::run::bench
