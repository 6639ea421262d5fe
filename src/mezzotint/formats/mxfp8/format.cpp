#include "mezzotint/formats/common/mx_fp8.h"

namespace mezzotint::formats {

extern const Format format_mxfp8;

namespace {
constexpr auto kScalar = mx_fp8::Scalar::absent;
}

const Format format_mxfp8{
    .name = "mxfp8",
    .summary = "8-bit floats (3-bit mantissa), a power of two per 32 columns of a row",
    .support = {.comfyui = true,
                .loaders = "ComfyUI with a comfy-kitchen that has it (linear layers and banks of experts)",
                .fast_on = "NVIDIA SM 10.0 and newer (Blackwell), with PyTorch 2.10"},
    .describe = [](const LayerFacts& facts,
                   const Options& options) { return mx_fp8::describe(format_mxfp8, kScalar, facts, options); },
    .choose_plan = mx_fp8::choose_plan,
    .observe = mx_fp8::observe,
    .encode = mx_fp8::encode,
    .decode = mx_fp8::decode,
    .decode_bf16 = mx_fp8::decode,
    .error_bound = mx_fp8::error_bound,
    .scale_by_power_of_two = mx_fp8::scale_by_power_of_two,
    .matmul_form = mx_fp8::matmul_form,
    .companions = mx_fp8::kCompanions,
    .marker = mx_fp8::marker,
    .recognise = [](const StoredLayer& layer) { return mx_fp8::recognise(format_mxfp8, kScalar, layer); },
    .verify = mx_fp8::verify,
};

}  // namespace mezzotint::formats
