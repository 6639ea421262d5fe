#pragma once
#include <string>

#include "mezzotint/formats/matmul.h"

/// How formats::matmul would compute a product here and now, for reports. It asks the same code that computes.
namespace mezzotint::formats {

struct MatmulPath {
  std::string kernel;  ///< operands as they are multiplied, weight first, and the level: "int8 x int8, avx512vnni"
  std::string reason;  ///< why nothing faster: "inputs are float32; this CPU has no AMX"; "" where there is nothing
  /// Whether the format's own runtime would round these inputs to codes, and this product does not.
  bool leaves_inputs = false;
};

MatmulPath matmul_path(const Matmul& product);

}  // namespace mezzotint::formats
