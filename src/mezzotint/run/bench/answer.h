#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <set>
#include <string>

#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::run::bench {

struct Answer {
  at::Tensor y;
  std::string path;  ///< which kernels multiplied
  bool dequantized = false;
};

/// Runs once and sees which way its quantized operations go.
inline Answer watch(const std::function<at::Tensor()>& run) {
  const tensor::DispatchScope scope;
  Answer answer{.y = run(), .path = ""};
  std::set<std::string> kernels;
  for (const tensor::DispatchRow& row : scope.rows())
    if (row.dequantized)
      kernels.insert("dequantized, " + row.operation + ": " + row.reason);
    else if (row.operation == "aten::linear")
      kernels.insert(row.kernel);
  for (const std::string& kernel : kernels) answer.path += (answer.path.empty() ? "" : "; ") + kernel;
  answer.dequantized = scope.dequantized() > 0;
  return answer;
}

}  // namespace mezzotint::run::bench
