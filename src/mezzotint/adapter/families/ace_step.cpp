// ACE-Step 1.5, whose adapters are trained on the decoder alone (ComfyUI: comfy/lora.py).
#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_ace_step(const Names& names) {
  return names.any("decoder.layers.0.") && names.any("encoder.");
}

void add_ace_step(const Names&, Aliases& aliases) {
  aliases.add_tree("", "decoder.");
}

}  // namespace

extern const Family family_ace_step = {.name = "ACE-Step 1.5", .fits = fits_ace_step, .add = add_ace_step};

}  // namespace mezzotint::adapter
