#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "mezzotint/io/reader.h"

/// Plain tensors from and to safetensors files. Quantized ones belong to layers: nn/load.h.
namespace mezzotint::tensor {

/// A tensor as it is stored. With `map` it is a view of the mapped file, which lives as long as it (io::Source::map),
/// where its place in the file suits its dtype; else a copy. Throws Error "bad-dtype" where libtorch has no such dtype.
at::Tensor read_tensor(const io::Source& file, size_t index, bool map = false);
/// The same bytes under another dtype and shape of that size.
at::Tensor read_tensor(const io::Source& file, size_t index, DType dtype, const Shape& shape, bool map = false);

/// All tensors of a file, by name. Throws as read_tensor does.
std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path);

/// The file appears when it is complete, and nothing stays of one that is not. Throws Error "output-exists" unless
/// `overwrite`, c10::Error where a tensor is quantized.
void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   bool overwrite = false);

}  // namespace mezzotint::tensor
