#include "mezzotint/formats/common/plain.h"

namespace mezzotint::formats {

extern const Format format_fp16;

namespace {
using Codec = Plain<DType::f16>;
constexpr Alias kAliases[] = {{"float16", ""}};
}  // namespace

const Format format_fp16{
    .name = "fp16",
    .summary = "plain float16, not quantized",
    .aliases = kAliases,
    .support = {.comfyui = true,
                .loaders = "every program that reads safetensors",
                .fast_on = "NVIDIA SM 7.0 and newer"},
    .quantized = false,
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return Codec::describe(format_fp16, facts, options); },
    .encode = Codec::encode,
    .decode = Codec::decode,
    .error_bound = Codec::error_bound,
    .matmul_form = Codec::matmul_form,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_fp16, layer); },
};

}  // namespace mezzotint::formats
