#include "mezzotint/convert/preset.h"

// Nothing but the rules that hold for every architecture (generic_rules).
namespace mezzotint::convert::presets {
namespace {

constexpr std::string_view kAliases[] = {"unknown"};

}  // namespace

extern const Preset preset_generic = {.name = "generic",
                                      .summary = "Any other architecture: the rules that all of them need",
                                      .part = Part::any,
                                      .aliases = kAliases,
                                      .signatures = {},
                                      .keep = {}};

}  // namespace mezzotint::convert::presets
