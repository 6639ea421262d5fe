#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/report/meter.h"

namespace mezzotint::convert {

/// How far B's weight is from A's, both decoded to float32. All sums in double.
struct LayerError {
  std::string name;
  std::string from, to;  ///< format label or dtype on each side
  uint64_t elements = 0;
  double relative_error = 0;  ///< ||B - A|| / ||A|| (Frobenius); 0 where both are zero
  double sqnr_db = 0;         ///< 10 log10(sum A^2 / sum (B - A)^2); +inf where equal
  double max_error = 0;       ///< max |B - A|
  double cosine = 1;
  uint64_t non_finite = 0;  ///< elements not finite on either side, left out of the sums
  MeasuredErrors errors;    ///< what the above comes from; all zero where the dtype cannot be read as numbers
};

struct Comparison {
  std::vector<LayerError> layers;  ///< tensors that differ or are stored differently, worst relative error first
  std::vector<std::string> only_in_a, only_in_b, shape_differs;
  uint64_t identical_tensors = 0;  ///< same dtype and bytes
  uint64_t rescaled = 0;           ///< layers and norms of B compared without the smoothing factors that its norms took
  double relative_error = 0;       ///< over all compared layers: sqrt(sum ||E||^2 / sum ||A||^2)
  double mean_relative_error = 0;  ///< mean over layers
  double worst_sqnr_db = 0;
};

/// Streams both files; memory is bounded by tiles. Layers pair up by name, through either side's format.
Comparison compare(const checkpoint::Model& a, const checkpoint::Model& b, int threads,
                   const std::function<void(uint64_t done, uint64_t total)>& progress = {});

}  // namespace mezzotint::convert
