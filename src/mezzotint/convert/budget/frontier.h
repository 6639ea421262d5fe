#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace mezzotint::convert {

/// One size of a model and what it costs: what a person chooses between.
struct FrontierPoint {
  uint64_t bytes = 0;                               ///< of the output, header included
  double bits_per_weight = 0;                       ///< Plan::bits_per_weight
  double cost = 0;                                  ///< sum over the layers that were chosen for
  double error = 0;                                 ///< estimated error, in the unit of BudgetRequest::max_error
  std::vector<std::pair<std::string, size_t>> mix;  ///< format, number of layers
  bool chosen = false;
};

/// By size; a larger point never costs more.
using Frontier = std::vector<FrontierPoint>;

}  // namespace mezzotint::convert
