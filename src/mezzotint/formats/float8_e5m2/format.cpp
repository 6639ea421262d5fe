#include "mezzotint/formats/common/fp8_tensor.h"

namespace mezzotint::formats {

extern const Format format_float8_e5m2;

namespace {
using Codec = Fp8Tensor<DType::f8_e5m2>;
constexpr Alias kAliases[] = {{"fp8_e5m2", ""}};
}  // namespace

const Format format_float8_e5m2{
    .name = "float8_e5m2",
    .summary = "8-bit floats (2-bit mantissa, up to 57344), one scale per weight",
    .aliases = kAliases,
    .support = {.comfyui = true,
                .loaders = "ComfyUI (layers and embeddings)",
                .fast_on = "CPUs; expect ComfyUI to dequantize it on GPUs"},
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return Codec::describe(format_float8_e5m2, facts, options); },
    .choose_plan = Codec::choose_plan,
    .observe = Codec::observe,
    .finish = Codec::finish,
    .encode = fp8_codes::encode<DType::f8_e5m2>,
    .decode = fp8_codes::decode<DType::f8_e5m2>,
    .decode_bf16 = fp8_codes::decode<DType::f8_e5m2>,
    .error_bound = fp8_codes::error_bound<DType::f8_e5m2>,
    .scale_by_power_of_two = fp8_codes::scale_by_power_of_two,
    .scale_update = ScaleUpdate::power_of_two,
    .matmul_form = fp8_codes::matmul_form<DType::f8_e5m2>,
    .companions = kFp8Companions,
    .input_scale_divisor = 57344,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_float8_e5m2, layer); },
    .verify = fp8_codes::verify,
};

}  // namespace mezzotint::formats
