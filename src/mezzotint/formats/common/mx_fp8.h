#pragma once
#include "mezzotint/formats/format.h"

/// E4M3 codes under a power of two per 32 columns of a row (OCP MX), stored as cuBLASLt wants them: codes padded to
/// multiples of 32 rows and columns, scale bytes in the blocked layout of swizzle.h. kernel/mx.h has the formulas. A
/// layout with a third tensor also keeps the largest scale of each expert as F32 [] ([E] for a bank).
namespace mezzotint::formats::mx_fp8 {

inline constexpr int64_t kAlignment = 32;  ///< of rows and columns of the stored codes

/// Whether `weight_scalar` stands beside the scales.
enum class Scalar : uint8_t { absent, present };

Description describe(const Format& format, Scalar scalar, const LayerFacts& facts, const Options& options);
ChoosePlan choose_plan(const Layout& layout, const ChooseOptions& choose);
bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
             Parameters& parameters);
/// Of layouts with a scalar.
void finish(const Layout& layout, const ChooseOptions& choose, int pass, float* stats, Parameters& parameters);
void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes);
/// `Out` is float, or uint16_t for bf16.
template <class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride);
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound);
bool scale_by_power_of_two(const Layout& layout, Parameters& parameters, int exponent);
MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert);
void marker(const Layout& layout, nlohmann::ordered_json& object);
Recognition recognise(const Format& format, Scalar scalar, const StoredLayer& layer);
void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems);

/// Tensors that loaders read beside the layer.
inline constexpr std::string_view kCompanions[] = {"input_scale"};

}  // namespace mezzotint::formats::mx_fp8
