#include "mezzotint/cli/foreign_options.h"

#include <algorithm>
#include <array>

namespace mezzotint::cli {
namespace {

constexpr std::string_view kSearch =
    "there is no gradient search to tune; codes are the nearest ones under each format's own scales";
constexpr std::string_view kQuip = "use --optimizer quip, whose only setting is --seed N; it stores plain formats";
constexpr std::string_view kMemory = "memory is bounded always; --max-memory SIZE sets the bound";
constexpr std::string_view kSamples =
    "nothing is calibrated on made-up activations; --calibration FILE takes statistics of real ones "
    "(tools/calibrate/record.py)";
constexpr std::string_view kCpu = "the conversion runs on the CPU's cores; --threads N limits them";
constexpr std::string_view kRepair =
    "use `mezzotint repair FILE -o OUTPUT`, which reads the legacy naming of every kind";
constexpr std::string_view kEdit = "use `mezzotint edit`";
constexpr std::string_view kPreset =
    "the architecture is recognised from the file; --preset NAME overrides it (`mezzotint presets` lists them)";
constexpr std::string_view kStreams =
    "thresholds of single steps are not needed; --max-memory SIZE bounds the whole run";

constexpr auto kOptions = std::to_array<ForeignOption>({
    // Input, output, general
    {"-i --input", "write the input file without an option: mezzotint convert FILE --to FORMAT"},
    {"--comfy-quant", "not needed, ComfyUI's naming is the only one written"},
    {"--save-quant-metadata", "not needed, both the markers and the header entry are always written"},
    {"-fpmm --full-precision-mm", "use --full-precision-matrix-mult"},
    {"--static-activations --input-scales",
     "activation scales that were not measured are not invented: --calibration FILE brings them, those of the source "
     "are kept"},
    {"--no-normalize-scales",
     "not needed, scales with one number are always stored with rank 0, others never squeezed"},
    {"--verbose --verbose-pinned", "use --quiet for less and `mezzotint plan --layers` for every decision"},
    {"--manual-seed", "use --seed N with --rounding stochastic or --optimizer quip; nothing else is random"},
    {"--device", kCpu},
    {"-lm --low-memory --no-memory-limits", kMemory},
    {"-he -hf -ha -hl -hm -hlr --help-experimental --help-filters --help-advanced --help-learned --help-modes "
     "--help-lora",
     "use `mezzotint COMMAND --help`"},
    // Formats and routing
    {"--int8", "use --to int8 (one scale per row; --to int8_tensorwise or --to int8_blockwise for the others)"},
    {"--nvfp4", "use --to nvfp4 (`mezzotint formats` lists the formats of this version)"},
    {"--mxfp8", "use --to mxfp8 (`mezzotint formats` lists the formats of this version)"},
    {"--fp16", "use --to fp16"},
    {"--scaling-mode", "the granularity is part of the format: `mezzotint formats` lists names and options"},
    {"--block-size --group-size", "an option of the format: --to int8_blockwise:block_size=128"},
    {"--convrot --convrot-group-size --dynamic-convrot",
     "rotation is an option of a format where it exists: `mezzotint formats` lists them"},
    {"--heur", "not needed, a layer whose shape the format cannot take is kept and the plan says why"},
    {"--exclude-layers", "use --exclude REGEX"},
    {"--custom-layers --custom-type --custom-block-size --custom-scaling-mode --custom-simple --custom-heur "
     "--custom-full-precision-mm --custom-fpmm --custom-convrot --custom-convrot-group-size",
     "use --layer-config FILE, which gives any layer its own format (`mezzotint plan FILE --template` writes one)"},
    {"--fallback-block-size --fallback-simple",
     "options of the fallback go with its name: --fallback int8_blockwise:block_size=64"},
    {"--simple", "use --effort 0: plain absmax scales and rounding to the nearest code"},
    // Presets
    {"--t5xxl --mistral --visual --generic-text --gemma4 --qwen35 --flux2 --distillation-large --distillation-small "
     "--nerf-large --nerf-small --radiance --wan --hunyuan --qwen --zimage --zimage-refiner --anima --lens "
     "--krea2 "
     "--ideogram4 --boogu --ltxv2",
     kPreset},
    // Learned rounding
    {"--num-iter --lr --use-speed --lr-schedule --lr-gamma --lr-patience --lr-factor --lr-min "
     "--lr-cooldown "
     "--lr-threshold --lr-threshold-mode --lr-adaptive-mode --lr-shape-influence -esloss --early-stop-loss -eslr "
     "--early-stop-lr -esstall --early-stop-stall --full-matrix --scale-optimization "
     "--scale-refinement",
     kSearch},
    {"--calib-samples --calib-cpu --calibration-data", kSamples},
    // Fork: smoothing, GPTQ, QuIP
    {"--smoothquant --smoothquant-alpha", "use --smooth ALPHA with --calibration"},
    {"--gptq-actorder --gptq-fast --gptq-turbo", kSearch},
    {"--quip-actorder --no-quip-actorder --quip-hadamard --no-quip-hadamard --quip-seed --quip-store-transformed "
     "--quip-requant-scheme --quip-requant-tensor-per-row --no-quip-requant-tensor-per-row --quip-checkpointed "
     "--quip-checkpoint-threshold --quip-checkpoint-segments",
     kQuip},
    {"--streaming --streaming-aggressive", "use --streaming-mode NAME or, better, --max-memory SIZE"},
    {"--stream-hadamard-threshold --stream-hessian-threshold --stream-ldlq-threshold --stream-ortho-threshold",
     kStreams},
    {"--bf16-threshold --bf16-hadamard-threshold --bf16-hessian-threshold",
     "--bf16-compute auto decides by what the weights are stored as; no size is too small for it"},
    {"--report-quality --quality-threshold", "use `mezzotint compare ORIGINAL CONVERTED`"},
    // Utility modes
    {"--edit-quant", kEdit},
    {"--remove-keys", "use `mezzotint edit --remove-field NAME`"},
    {"--add-keys", "use `mezzotint edit --set-field NAME=VALUE`"},
    {"--quant-filter", "use `mezzotint edit --layers REGEX`"},
    {"--convert-fp8-scaled --convert-int8-scaled --cleanup-fp8-scaled --scaled-fp8-marker", kRepair},
    {"--hp-filter", "not needed, `mezzotint inspect --layers` shows what every layer is"},
    {"--legacy-input-add", "the legacy naming is read but not written; `mezzotint repair` brings a file up to date"},
    {"--make-hybrid-mxfp8 --tensor-scales", "no runtime loads hybrid_mxfp8"},
    {"--actcal --actcal-samples --actcal-percentile --actcal-lora --actcal-seed --actcal-device", kSamples},
    {"--extract-lora --lora-rank --lora-target --lora-depth --lora-ar-threshold --lora-output",
     "use `mezzotint correct ORIGINAL CONVERTED -o LORA`"},
    // Stand-alone scripts
    {"--original --quantized --base --layers-to-compare --output-report --top-layers",
     "use `mezzotint compare A B --top N`"},
    {"--pattern --dry-run-batch --lora-mapping --lora-dir", "give several files or a folder to `mezzotint convert`"},
});

std::string_view next_word(std::string_view& words) {
  const size_t end = std::min(words.find(' '), words.size());
  const auto word = words.substr(0, end);
  words.remove_prefix(std::min(end + 1, words.size()));
  return word;
}

}  // namespace

std::span<const ForeignOption> foreign_options() {
  return kOptions;
}

std::optional<std::string_view> foreign_option(std::string_view spelled) {
  std::optional<std::string_view> prefix;
  size_t answers = 0;
  for (const auto& option : kOptions) {
    bool fits = false;
    for (std::string_view words = option.names; !words.empty();) {
      const auto word = next_word(words);
      if (word == spelled) return option.answer;
      fits |= spelled.starts_with("--") && spelled.size() >= 5 && word.starts_with(spelled);
    }
    if (!fits) continue;
    ++answers;
    prefix = option.answer;
  }
  return answers == 1 ? prefix : std::nullopt;
}

}  // namespace mezzotint::cli
