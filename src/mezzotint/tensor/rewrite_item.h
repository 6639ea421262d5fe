#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "mezzotint/convert/rewrite.h"

/// Tensors as items of a file that is written (files.cpp).
namespace mezzotint::tensor {

/// Bytes of a plain tensor that is kept alive, made when their turn comes: as its own dtype and shape, or as another of
/// that size (whose name is ignored).
convert::RewriteItem rewrite_item(std::string name, const at::Tensor& tensor,
                                  std::optional<io::TensorSpec> as = std::nullopt);

}  // namespace mezzotint::tensor
