#pragma once
#include <map>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"

namespace mezzotint::convert {

/// Finds the norms of `converted` that took over smoothing factors of the layers behind them, which are the original's
/// times powers of two: by tensor name, what columns of these layers and of the norms have to be multiplied by to be
/// the original's. Norms that differ in any other way are not there.
std::map<std::string, std::vector<float>, std::less<>> rescaled_tensors(const checkpoint::Model& original,
                                                                        const checkpoint::Model& converted);

}  // namespace mezzotint::convert
