#include "mezzotint/formats/common/plain.h"

namespace mezzotint::formats {

extern const Format format_bf16;

namespace {
using Codec = Plain<DType::bf16>;
constexpr Alias kAliases[] = {{"bfloat16", ""}};
}  // namespace

const Format format_bf16{
    .name = "bf16",
    .summary = "plain bfloat16, not quantized",
    .aliases = kAliases,
    .support = {.comfyui = true,
                .loaders = "every program that reads safetensors",
                .fast_on = "NVIDIA SM 8.0 and newer, AVX-512 BF16, AMX"},
    .quantized = false,
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return Codec::describe(format_bf16, facts, options); },
    .encode = Codec::encode,
    .decode = Codec::decode,
    .error_bound = Codec::error_bound,
    .matmul_form = Codec::matmul_form,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_bf16, layer); },
};

}  // namespace mezzotint::formats
