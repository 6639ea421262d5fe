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
    .encode = fp8_codes::encode<DType::f8_e4m3>,
    .decode = fp8_codes::decode<DType::f8_e4m3>,
    .decode_bf16 = fp8_codes::decode<DType::f8_e4m3>,
    .error_bound = fp8_codes::error_bound<DType::f8_e4m3>,
    .scale_by_power_of_two = fp8_codes::scale_by_power_of_two,
    .scale_update = ScaleUpdate::power_of_two,
    .matmul_form = fp8_codes::matmul_form<DType::f8_e4m3>,
    .companions = kFp8Companions,
    .input_scale_divisor = 448,
    .recognise = [](const StoredLayer& layer) { return Codec::recognise(format_float8_e4m3fn, layer); },
    .verify = fp8_codes::verify,
};

}  // namespace mezzotint::formats
