#pragma once
#include "mezzotint/formats/common/fp8_codes.h"
#include "mezzotint/formats/format.h"

/// E4M3 codes with float32 scales per row or per block: the three formats that convert_to_quant writes beside
/// float8_e4m3fn, and that musubi-tuner writes without a marker. Codes are those of fp8_codes.h; per scale
///
///     m  = max(amax, 1e-12)
///     qs = 448 * (1 / m)        the reciprocal is rounded on its own, as torch computes 448 / m
///     s  = 1 / qs               what is stored
///
/// inf and NaN take no part in amax.
namespace mezzotint::formats::fp8_blocks {

enum class Geometry : uint8_t {
  row,    ///< one scale per row, [N] ([] where N is 1)
  tile,   ///< block_size x block_size tiles, [N / b, K / b]
  group,  ///< block_size columns within each row, [N, K / b, 1]
};

inline constexpr std::string_view kBlockSize = "block_size";
inline constexpr OptionSpec kBlockOption[] = {
    {kBlockSize, OptionSpec::Type::integer, "128", "1..1048576", "rows and columns that share a scale"}};
inline constexpr OptionSpec kGroupOption[] = {
    {kBlockSize, OptionSpec::Type::integer, "128", "1..1048576", "columns of a row that share a scale"}};

Description describe(const Format& format, Geometry geometry, const LayerFacts& facts, const Options& options);
ChoosePlan choose_plan(const Layout& layout, const ChooseOptions& choose);
bool observe(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
             Parameters& parameters);
/// "group_size", where there are blocks.
void marker(const Layout& layout, nlohmann::ordered_json& object);
/// The scale's shape decides the geometry, whatever the label: convert_to_quant says `_blockwise` also over scales per
/// row, and legacy files say nothing.
Recognition recognise(const Format& format, Geometry geometry, const StoredLayer& layer);

}  // namespace mezzotint::formats::fp8_blocks
