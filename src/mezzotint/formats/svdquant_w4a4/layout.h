#pragma once
#include "mezzotint/formats/format.h"

namespace mezzotint::formats::svdquant_w4a4 {

inline constexpr std::string_view kScale = "weight_scale", kDown = "weight_proj_down", kUp = "weight_proj_up",
                                  kSmooth = "weight_smooth_factor";
inline constexpr int64_t kGroup = 64;      ///< columns that share a scale
inline constexpr int64_t kTileRows = 128;  ///< of the tiled form

/// Order of Layout::tensors.
enum : size_t { kWeightAt, kScaleAt, kDownAt, kUpAt, kSmoothAt };

Recognition recognise(const StoredLayer& layer);
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride);

}  // namespace mezzotint::formats::svdquant_w4a4
