#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"

/// Reading the markers of every dialect (room-internal).
namespace mezzotint::checkpoint {

struct LayerMarker {
  nlohmann::json object;  ///< nested "params" flattened
  Dialect dialect = Dialect::comfy_quant;
};

/// A legacy marker tensor `<prefix>scaled_fp8`.
struct LegacyMarker {
  std::string prefix;
  size_t tensor = 0;
  bool full_precision_matrix_mult = false;  ///< the marker has exactly two elements
};

struct MarkerSet {
  std::map<std::string, LayerMarker, std::less<>> layers;  ///< effective marker by layer name
  std::map<std::string, size_t, std::less<>> tensors;      ///< layer name -> its .comfy_quant tensor
  std::vector<LegacyMarker> legacy;                        ///< only where there is no header metadata
  bool has_header = false;
};

MarkerSet read_markers(const io::Source& source, std::vector<Finding>& findings);

}  // namespace mezzotint::checkpoint
