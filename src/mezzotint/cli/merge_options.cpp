#include "mezzotint/cli/merge_options.h"

namespace mezzotint::cli {

void add_merge_options(CLI::App& app, MergeArguments& a) {
  const auto group = [](CLI::Option* option) { return option->group("Adapters"); };
  group(app.add_option("--merge-lora", a.lora,
                       "Multiply an adapter into the weights before anything else: LoRA, LoHa, LoKr, OFT, BOFT, GLoRA, "
                       "DoRA or differences, in any dialect. FILE:STRENGTH for a strength of its own"))
      ->type_name("FILE[:STRENGTH]");
  group(app.add_option("--merge-loras", a.loras, "The same for several, in this order"))
      ->type_name("FILE[:STRENGTH]...")
      ->type_size(1)
      ->expected(1, 1 << 20);
  group(app.add_option("--merge-lora-scale", a.scale, "Multiplies the strengths of all of them. Default: 1"))
      ->type_name("S");
  auto* dampen = group(
      app.add_flag("--merge-lora-dampen", a.dampen, "The n-th adapter with 0.9^(n-1) of its strength; the default"));
  group(app.add_flag("--no-merge-lora-dampen", a.no_dampen, "All adapters with their full strength"))->excludes(dampen);
}

void apply_merge(const MergeArguments& a, convert::ConvertOptions& options) {
  std::vector<convert::MergeLora> loras;
  if (!a.lora.empty()) loras.push_back(parse_lora(a.lora));
  for (const std::string& text : a.loras) loras.push_back(parse_lora(text));
  if (!loras.empty()) options.merge_loras = std::move(loras);
  if (options.merge_loras.empty() && (a.scale || a.dampen || a.no_dampen))
    throw UsageError("--merge-lora-scale and --merge-lora-dampen need adapters: give --merge-lora or --merge-loras.");
  if (a.scale)
    for (convert::MergeLora& lora : options.merge_loras) lora.strength *= *a.scale;
  if (a.dampen) options.merge_dampen = true;
  if (a.no_dampen) options.merge_dampen = false;
}

}  // namespace mezzotint::cli
