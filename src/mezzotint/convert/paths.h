#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// Which files a job reads and writes.
namespace mezzotint::convert {

/// The models that a list of arguments means: a file, an index, or a folder that is one model (io::Source::open) stands
/// for itself; a folder that holds several models stands for every .safetensors file in it, sorted. Throws Error
/// "ambiguous-folder" where some of those are shards.
std::vector<std::filesystem::path> expand_inputs(const std::vector<std::filesystem::path>& arguments);

/// How a format is called in file names, by the habit of published files: "float8_X" is "fp8_X_scaled", other names
/// stay; options that are not the default follow ("int8_blockwise_block_size64", "int8_tensorwise_row").
std::string file_label(const formats::Selection& selection);

/// MODEL_LABEL.safetensors beside the input. A plain dtype at the end of the input's name ("_bf16") is taken off, and
/// of a shard index or a folder the model's name is used.
std::filesystem::path default_output(const std::filesystem::path& input, const std::string& label);

/// Output of one input: `wanted` as a file, or the default name in the folder `wanted`, or the default. Throws Error
/// "output-not-folder" where there are several inputs and `wanted` names a file.
std::filesystem::path choose_output(const std::filesystem::path& input, const std::filesystem::path& wanted,
                                    const std::string& label, bool several);

}  // namespace mezzotint::convert
