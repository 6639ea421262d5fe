#pragma once
#include <vector>

#include "mezzotint/run/bench/setup.h"

namespace mezzotint::run::bench {

/// A linear layer on M rows of activations.
struct LayerCase {
  std::string what;
  int64_t m, n, k;
};
/// The four of the published comparison (first layer of a small batch, attention and MLP down of the long sequence,
/// attention of a medium one, a quarter as long), or where `m` is not empty attention, MLP up and MLP down at each.
std::vector<LayerCase> layer_cases(const Setup::Model& model, const std::vector<int64_t>& m);

/// torch's linear in float32, bfloat16 and, where it is computed in it, float16, and ours in every format: all on the
/// same weight and activations, normal values in bfloat16. Errors are those of up to 64 rows beside float32.
Table measure_layer(const Setup& setup, const std::string& model, const LayerCase& layer);

}  // namespace mezzotint::run::bench
