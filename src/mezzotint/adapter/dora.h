#pragma once
#include <memory>
#include <string>

#include "mezzotint/adapter/effect.h"

/// Weight decomposition (DoRA, Liu et al. 2024): V = W with the effect at strength 1, every row or input column of V
/// gets the length that `magnitude` says, and strength s goes straight from W to that: W + s (V m / |V| - W). Lengths
/// are those of V (not of W), sums of squares are in double; a V of zeros stays one.
namespace mezzotint::adapter {

/// Which vectors have the magnitudes.
enum class DoraAxis : uint8_t {
  rows,     ///< one per output: [O, 1, ...], PEFT's [O] and, for convolutions, [1, O, 1, ...]
  columns,  ///< one per input channel, over outputs and kernel: [1, I, 1, ...]
};

/// The axis for a weight, or a clause that says why the magnitude fits none.
struct DoraFit {
  DoraAxis axis = DoraAxis::rows;
  std::string misfit;
};
/// `peft`: named lora_magnitude_vector, which is always one of outputs.
DoraFit dora_axis(const Shape& magnitude, bool peft, const Shape& weight);

std::unique_ptr<const Effect> with_magnitude(std::unique_ptr<const Effect> effect, Tensor magnitude, DoraAxis axis);

}  // namespace mezzotint::adapter
