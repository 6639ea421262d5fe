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
  std::string verbatim;   ///< as the file has it, for layers that are only carried along
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

/// Parses JSON that somebody else wrote: a discarded value where it is none, or nests so deeply that handling it would
/// exhaust the stack.
nlohmann::json parse_foreign_json(std::string_view text);

MarkerSet read_markers(const io::Source& source, std::vector<Finding>& findings);

}  // namespace mezzotint::checkpoint
