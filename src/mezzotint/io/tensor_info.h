#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "mezzotint/base/dtype.h"

namespace mezzotint::io {

/// One tensor as a file's header describes it.
struct TensorInfo {
  std::string name;
  DType dtype = DType::u8;
  Shape shape;
  uint64_t bytes = 0;   ///< size of its data
  uint64_t offset = 0;  ///< of its first byte, counted from the start of its file
  size_t file = 0;      ///< index of the file that holds it (Source::files)
};

/// User metadata of a header, in file order.
using Metadata = std::vector<std::pair<std::string, std::string>>;

}  // namespace mezzotint::io
