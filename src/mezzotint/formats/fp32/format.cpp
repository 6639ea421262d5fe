#include "mezzotint/formats/common/plain.h"

namespace mezzotint::formats {

extern const Format format_fp32;

namespace {
using Codec = Plain<DType::f32>;
constexpr Alias kAliases[] = {{"float32", ""}};
}  // namespace

const Format format_fp32{
    .name = "fp32",
    .summary = "plain float32, not quantized",
    .aliases = kAliases,
    .support = {.comfyui = true, .loaders = "every program that reads safetensors", .fast_on = "every processor"},
    .quantized = false,
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return Codec::describe(format_fp32, facts, options); },
    .encode = Codec::encode,
    .decode = Codec::decode,
    .error_bound = Codec::error_bound,
    .matmul_form = Codec::matmul_form,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_fp32, layer); },
};

}  // namespace mezzotint::formats
