#include "mezzotint/formats/common/fp8_blocks.h"
#include "mezzotint/formats/common/fp8_tensor.h"

namespace mezzotint::formats {

extern const Format format_float8_e4m3fn_block3d;

namespace {
constexpr auto kGeometry = fp8_blocks::Geometry::group;
}

const Format format_float8_e4m3fn_block3d{
    .name = "float8_e4m3fn_block3d",
    .summary = "8-bit floats (3-bit mantissa), one scale per block of columns in a row",
    .options = fp8_blocks::kGroupOption,
    .support = {.comfyui = false,
                .loaders = "musubi-tuner (there without a marker)",
                .fast_on = "nothing known: its loaders dequantize it",
                .nearest = "float8_e4m3fn"},  // names a format: what ComfyUI can load instead
    .describe =
        [](const LayerFacts& facts, const Options& options) {
          return fp8_blocks::describe(format_float8_e4m3fn_block3d, kGeometry, facts, options);
        },
    .choose_plan = fp8_blocks::choose_plan,
    .observe = fp8_blocks::observe,
    .encode = fp8_codes::encode<DType::f8_e4m3>,
    .decode = fp8_codes::decode<DType::f8_e4m3>,
    .decode_bf16 = fp8_codes::decode<DType::f8_e4m3>,
    .error_bound = fp8_codes::error_bound<DType::f8_e4m3>,
    .scale_by_power_of_two = fp8_codes::scale_by_power_of_two,
    .scale_update = ScaleUpdate::power_of_two,
    .matmul_form = fp8_codes::matmul_form<DType::f8_e4m3>,
    .companions = kFp8Companions,
    .marker = fp8_blocks::marker,
    .recognise =
        [](const StoredLayer& layer) { return fp8_blocks::recognise(format_float8_e4m3fn_block3d, kGeometry, layer); },
    .verify = fp8_codes::verify,
};

}  // namespace mezzotint::formats
