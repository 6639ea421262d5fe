#include "mezzotint/models/wan/sampler.h"

#include <ATen/ops/full.h>

namespace mezzotint::models::wan {

std::vector<double> noise_levels(const SampleOptions& options) {
  std::vector<double> levels;
  for (int i = 0; i <= options.steps; ++i) {
    const double s = 1 - static_cast<double>(i) / options.steps;
    levels.push_back(options.shift * s / (1 + (options.shift - 1) * s));
  }
  return levels;
}

at::Tensor sample(const Transformer& model, const at::Tensor& noise, const at::Tensor& text,
                  const at::Tensor& text_null, const SampleOptions& options) {
  TORCH_CHECK(options.steps > 0, "at least one step is wanted");
  const bool guided = options.guidance != 1;
  TORCH_CHECK(!guided || text_null.defined(), "guidance needs a text to be guided away from");
  const std::vector<double> levels = noise_levels(options);
  at::Tensor x = noise.to(at::kFloat);
  for (int step = 0; step < options.steps; ++step) {
    const auto at_level = levels[static_cast<size_t>(step)], next = levels[static_cast<size_t>(step) + 1];
    const at::Tensor seen = x.to(noise.scalar_type());
    const at::Tensor time = at::full({x.size(0)}, 1000 * at_level, at::TensorOptions(at::kFloat).device(x.device()));
    at::Tensor v = model.forward(seen, time, text).to(at::kFloat);
    if (guided) {
      const at::Tensor away = model.forward(seen, time, text_null).to(at::kFloat);
      v = away + options.guidance * (v - away);
    }
    x = x + (next - at_level) * v;
    if (options.progress) options.progress(step);
  }
  return x.to(noise.scalar_type());
}

}  // namespace mezzotint::models::wan
