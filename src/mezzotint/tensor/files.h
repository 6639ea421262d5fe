#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

/// Plain tensors from and to safetensors files. Quantized ones belong to layers: nn/load.h.
namespace mezzotint::tensor {

/// All tensors of a file, by name. Throws Error "bad-dtype" where libtorch has no such dtype.
std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path);

/// The file appears when it is complete. Throws Error "output-exists" unless `overwrite`, c10::Error where a tensor is
/// quantized.
void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   bool overwrite = false);

}  // namespace mezzotint::tensor
