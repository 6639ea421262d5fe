#include "mezzotint/convert/preset.h"

// Krea 2.
//
// Kept: convert_to_quant's `krea2` filter, whose truncated words (firs, las, tml, txtfusion, tpro) mean first, last,
// tmlp and txtmlp, txtfusion, tproj. Not meant and not kept: names that happen to contain "las" or "firs".
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"k2", "krea_2"};

constexpr Signature kSignatures[] = {
    {.names = "txtfusion.projector.weight blocks.0.attn.wq.weight", .whose = "Krea 2's"},
};

constexpr PresetRule kKeep[] = {
    {R"(first)", "first layer"},    {R"(last\..*)", "last layer"},   {R"(tmlp\.\d)", "time embedding"},
    {R"(tproj\.\d)", "modulation"}, {R"(txtmlp\.\d)", "text input"}, {R"(txtfusion\..*)", "text fusion"},
};

}  // namespace

extern const Preset preset_krea2 = {.name = "krea2",
                                    .summary = "Krea 2",
                                    .part = Part::diffusion_model,
                                    .aliases = kAliases,
                                    .signatures = kSignatures,
                                    .keep = kKeep};

}  // namespace mezzotint::convert::presets
