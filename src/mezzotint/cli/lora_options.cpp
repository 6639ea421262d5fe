#include "mezzotint/cli/lora_options.h"

#include <fmt/format.h>

#include "mezzotint/cli/merge_options.h"

namespace mezzotint::cli {
namespace {

using Kind = LoraArguments::Kind;

std::vector<convert::MergeLora> with_strengths(const LoraArguments& a) {
  std::vector<convert::MergeLora> loras;
  bool open = false;
  for (const auto& [kind, text] : a.scale) {
    if (kind == Kind::file) {
      loras.push_back(parse_lora(text));
    } else {
      if (!open)
        throw UsageError("--lora-strength belongs to the --lora in front of it: give it behind one, and once.");
      const std::optional<double> strength = convert::parse_strength(text);
      if (!strength) throw UsageError(fmt::format("--lora-strength takes a number, not '{}'.", text));
      loras.back().strength = *strength;
    }
    open = kind == Kind::file;
  }
  return loras;
}

}  // namespace

void add_lora_options(CLI::App& app, LoraArguments& a) {
  const auto add = [&](const char* name, Kind kind, const char* help) {
    // Called at every occurrence, so that the order of both options is known.
    return app
        .add_option_function<std::vector<std::string>>(
            name, [&a, kind](const std::vector<std::string>& values) { a.scale.emplace_back(kind, values.back()); },
            help)
        ->trigger_on_parse()
        ->type_size(1)
        ->expected(1, 1 << 20)
        ->allow_extra_args(false)
        ->group("Adapters");
  };
  add("--lora", Kind::file,
      "Choose scales that hold the weights with this adapter, too, so that it can be merged later with these scales. "
      "It is not merged. Repeatable: with all of them and with each")
      ->type_name("FILE[:STRENGTH]");
  add("--lora-strength", Kind::strength, "Strength of the --lora in front of it. Default: 1")->type_name("S");
  add_repeated(&app, "--calibration-lora", a.calibration,
               "Round so that inputs which this adapter reads see less of the error (repeatable). It is not merged")
      ->type_name("FILE[:STRENGTH]")
      ->group("Adapters");
  app.add_flag("--strict", a.strict, "Stop where anything in an adapter has no place in the model")->group("Adapters");
}

void apply_loras(const LoraArguments& a, convert::ConvertOptions& options) {
  if (auto loras = with_strengths(a); !loras.empty()) options.scale_loras = std::move(loras);
  if (!a.calibration.empty()) options.calibration_loras.clear();
  for (const std::string& text : a.calibration) options.calibration_loras.push_back(parse_lora(text));
  if (!a.strict) return;
  options.lora_strict = !options.scale_loras.empty() || !options.calibration_loras.empty();
  options.merge_strict = !options.merge_loras.empty();
  if (!options.lora_strict && !options.merge_strict)
    throw UsageError("--strict is about adapters: give --lora, --calibration-lora or --merge-lora.");
}

}  // namespace mezzotint::cli
