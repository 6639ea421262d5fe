#include "mezzotint/formats/common/fp8_tensor.h"

namespace mezzotint::formats {

extern const Format format_float8_e4m3fn;

namespace {
using Codec = Fp8Tensor<DType::f8_e4m3>;
constexpr Alias kAliases[] = {{"fp8", ""}, {"fp8_e4m3fn", ""}};
}  // namespace

const Format format_float8_e4m3fn{
    .name = "float8_e4m3fn",
    .summary = "8-bit floats (3-bit mantissa, up to 448), one scale per weight",
    .aliases = kAliases,
    .support = {.comfyui = true, .loaders = "ComfyUI (layers and embeddings)", .fast_on = "NVIDIA SM 8.9 and newer"},
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return Codec::describe(format_float8_e4m3fn, facts, options); },
    .choose_plan = Codec::choose_plan,
    .observe = Codec::observe,
    .finish = Codec::finish,
    .encode = Codec::encode,
    .decode = Codec::decode,
    .error_bound = Codec::error_bound,
    .scale_by_power_of_two = Codec::scale_by_power_of_two,
    .companions = kFp8Companions,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_float8_e4m3fn, layer); },
    .verify = Codec::verify,
};

}  // namespace mezzotint::formats
