#pragma once
#include <filesystem>
#include <memory>

#include "mezzotint/models/wan/wan.h"
#include "mezzotint/nn/load.h"

namespace mezzotint::models::wan {

/// The transformer that a file (single, sharded index, or all-in-one) holds, in whatever formats its layers are. A
/// prefix that is not given is found out. `heads`: as in config_from. Throws what nn::load and config_from throw, and
/// Error "tensor-missing" where the file lacks a tensor of the model.
std::unique_ptr<Transformer> load(const std::filesystem::path& path, nn::LoadOptions options = {}, int64_t heads = 0,
                                  nn::LoadReport* report = nullptr);

}  // namespace mezzotint::models::wan
