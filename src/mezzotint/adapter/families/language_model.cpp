// Language models as text encoders: trainers leave out the "model." in front (ComfyUI: comfy/lora.py).
#include "mezzotint/adapter/family.h"

namespace mezzotint::adapter {
namespace {

bool fits_language_model(const Names& names) {
  return names.any("model.layers.0.self_attn.");
}

void add_language_model(const Names&, Aliases& aliases) {
  aliases.add_tree("", "model.");
}

}  // namespace

extern const Family family_language_model = {
    .name = "language model", .fits = fits_language_model, .add = add_language_model};

}  // namespace mezzotint::adapter
