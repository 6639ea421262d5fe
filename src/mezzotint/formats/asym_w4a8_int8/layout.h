#pragma once
#include "mezzotint/formats/format.h"
#include "mezzotint/kernel/codebook.h"

/// The geometry of asym_w4a8_int8: which tensors, and how the kernels see them.
namespace mezzotint::formats::asym_w4a8_int8 {

inline constexpr std::string_view kName = "asym_w4a8_int8";
inline constexpr std::string_view kCodes = "codes";
inline constexpr std::string_view kGroupSize = "group_size";

/// What codes stand for.
enum class Codes : uint8_t { codebook, uniform, asymmetric, six_bit };
Codes codes_of(const Options& options);
std::string_view name(Codes codes);

/// Scales of groups are F8_E4M3. A file may hold them as F32: then a recognised layout says so, and only decodes.
Description describe(const LayerFacts& facts, const Options& options);

/// Positions in Layout::tensors. A layout has a codebook or a correction or neither, at kExtra.
inline constexpr size_t kRelative = 1, kChannel = 2, kExtra = 3;

kernel::LevelCodes level_codes(const Layout& layout, const Parameters& parameters);
kernel::LevelScales level_scales(const Layout& layout, const Parameters& parameters);

/// Relative scale of one group as float32.
float relative_at(const Layout& layout, const Parameters& parameters, int64_t row, int64_t group);

/// The 16 values that comfy-kitchen's codes stand for unless a weight is far from normal: the best table for groups of
/// a normal distribution (Lloyd-Max).
inline constexpr float kFixedCodebook[16] = {-.980602f, -.794529f, -.638165f, -.500986f, -.377321f, -.263187f,
                                             -.155210f, -.050720f, .052541f,  .156985f,  .265284f,  .379533f,
                                             .502636f,  .638953f,  .794876f,  .980671f};

Recognition recognise(const StoredLayer& layer);
/// Format::error_bound.
void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound);

}  // namespace mezzotint::formats::asym_w4a8_int8
