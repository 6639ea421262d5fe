#pragma once
#include <functional>

#include "mezzotint/models/wan/wan.h"

namespace mezzotint::models::wan {

struct SampleOptions {
  int steps = 20;
  double guidance = 5;  ///< v = v_null + guidance (v_text - v_null); 1 = the text alone, one forward a step
  double shift = 8;     ///< of the noise levels: sigma = shift s / (1 + (shift - 1) s) for s from 1 to 0
  std::function<void(int step)> progress;  ///< after each step
};

/// Noise levels from 1 to 0, steps + 1 of them.
std::vector<double> noise_levels(const SampleOptions& options);

/// Integrates the flow from `noise` (sigma = 1) to a latent (sigma = 0) by Euler steps: x += (next - sigma) v, with v
/// the model's velocity at time step 1000 sigma (Lipman et al., "Flow Matching for Generative Modeling", 2023). Steps
/// are added in float32. `text_null` is for guidance other than 1.
at::Tensor sample(const Transformer& model, const at::Tensor& noise, const at::Tensor& text,
                  const at::Tensor& text_null, const SampleOptions& options);

}  // namespace mezzotint::models::wan
