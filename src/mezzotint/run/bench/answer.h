#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "mezzotint/tensor/dispatch.h"

namespace mezzotint::run::bench {

struct Answer {
  at::Tensor y;
  std::string path;  ///< "", or which operation was computed with dequantized values and why
};

/// Runs once and sees which way its quantized operations go.
inline Answer watch(const std::function<at::Tensor()>& run) {
  const tensor::DispatchScope scope;
  Answer answer{run(), ""};
  for (const tensor::DispatchRow& row : scope.rows())
    if (!row.reason.empty()) answer.path = "dequantized, " + row.operation + ": " + row.reason;
  return answer;
}

}  // namespace mezzotint::run::bench
