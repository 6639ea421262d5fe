#include "mezzotint/cli/conversion_options.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "mezzotint/base/error.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/convert/calibration/input_scale.h"
#include "mezzotint/convert/optimizers/method.h"
#include "mezzotint/convert/recipe.h"
#include "mezzotint/convert/shipped_recipes.h"
#include "mezzotint/io/reader.h"

namespace mezzotint::cli {
namespace {

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof())
    throw Error({.name = "file-not-found", .problem = "the file cannot be read", .file = path});
  return text;
}

convert::ConvertOptions recipe_of_model(const std::string& path) {
  const io::Source source = io::Source::open(path);
  const auto origin = convert::origin_of(source.metadata());
  if (!origin)
    throw Error(
        {.name = "no-recipe",
         .problem = "the file's header holds no recipe",
         .file = path,
         .advice = "Only files written by this program have one; `mezzotint plan --save-recipe` writes a file."});
  return convert::recipe_from_json(origin->recipe);
}

// A file of that name wins over a recipe of the program's own.
convert::ConvertOptions read_recipe(const std::string& wanted) {
  if (wanted.ends_with(".safetensors") || wanted.ends_with(".index.json")) return recipe_of_model(wanted);
  std::error_code ignored;
  if (convert::is_recipe_name(wanted) && !wanted.ends_with(".json") && !std::filesystem::exists(wanted, ignored))
    return convert::recipe_from_json(std::string(convert::select_shipped_recipe(wanted).text));
  return convert::recipe_from_json(read_text(wanted));
}

}  // namespace

uint64_t streaming_mode_memory(const std::string& name) {
  constexpr std::pair<std::string_view, uint64_t> modes[] = {{"off", 8ull << 30},
                                                             {"minimal", 4ull << 30},
                                                             {"balanced", 1ull << 30},
                                                             {"aggressive", 256ull << 20},
                                                             {"auto", 1ull << 30}};
  for (const auto& [mode, bytes] : modes)
    if (mode == name) return bytes;
  throw UsageError(
      fmt::format("--streaming-mode has no mode '{}'. It is off, minimal, balanced, aggressive or auto.", name));
}

void add_conversion_options(CLI::App& app, ConversionArguments& a) {
  const auto group = [](CLI::Option* option, const char* name) { return option->group(name); };
  const char* what = "What to convert";
  group(
      app.add_option("-t,--to", a.to,
                     fmt::format("Format to write: a name or alias of `mezzotint formats`, with options after a colon "
                                 "(NAME:option=value,...). Default: {}",
                                 convert::ConvertOptions().to)),
      what)
      ->type_name("FORMAT");
  group(app.add_option("--fallback", a.fallback,
                       "Format for layers that --to cannot take, or that a preset or --exclude keeps. "
                       "Default: they stay as they are"),
        what)
      ->type_name("FORMAT");
  group(app.add_option("--preset", a.preset,
                       "Architecture rules: auto (recognise it), none, or a name of "
                       "`mezzotint presets`. Default: auto"),
        what)
      ->type_name("NAME");
  group(app.add_option("--component", a.component,
                       "Part of an all-in-one checkpoint to quantize, or all. Default: the "
                       "diffusion model"),
        what)
      ->type_name("NAME");
  group(
      add_repeated(&app, "--include", a.include, "Quantize layers that match, although a rule keeps them (repeatable)"),
      what)
      ->type_name("REGEX");
  group(add_repeated(&app, "--exclude", a.exclude, "Keep layers that match as they are (repeatable)"), what)
      ->type_name("REGEX");
  group(add_repeated(&app, "--drop", a.drop, "Leave tensors that match out of the output (repeatable)"), what)
      ->type_name("REGEX");
  group(app.add_option("--layer-config", a.layer_config,
                       "JSON file with a format for every layer; "
                       "`mezzotint plan --template` writes one to edit"),
        what)
      ->type_name("FILE");
  group(app.add_flag("--fullmatch", a.fullmatch, "Patterns of --layer-config must match the whole layer name"), what);
  group(app.add_option("--recipe", a.recipe,
                       "Take the options from a recipe file, a converted file's header, or a recipe of `mezzotint "
                       "recipes`; options given here win"),
        what)
      ->type_name("RECIPE");
  const char* how = "How";
  group(app.add_flag("--full-precision-matrix-mult", a.full_precision_matrix_mult,
                     "Mark layers so that the runtime multiplies in full precision"),
        how);
  group(app.add_option("--rounding", a.rounding,
                       "nearest or stochastic. Default: nearest; of quantized layers that keep their format and take "
                       "up adapters, feedback (see merge)"),
        how)
      ->type_name("MODE");
  group(app.add_option("--seed", a.seed, "Seed of stochastic rounding and of --optimizer quip. Default: 0"), how)
      ->type_name("N");
  group(app.add_option(
               "--effort", a.effort,
               fmt::format(
                   "How much to spend on less error. In brackets: error that fp4 makes in a small model, against 0, "
                   "and time of a 3072 x 3072 layer on one core. 0 = plain absmax (0.01 s); 1 = better scales of "
                   "4-bit formats (0.90, 0.02 s); 2 = ldlq (0.74, with --calibration 0.15, 0.6 s); 3 = and "
                   "coordinate descent (0.70, 1.4 s). Default: {}",
                   convert::ConvertOptions().effort))
            ->check(CLI::Range(0, 3)),
        how)
      ->type_name("N");
  group(app.add_option("--calibration", a.calibration,
                       "Files with statistics of the layers' inputs (tools/calibrate/record.py writes them); "
                       "several count as one recording"),
        how)
      ->type_name("FILE...")
      ->type_size(1)
      ->expected(1, 1 << 20);
  group(app.add_option("--input-scale", a.input_scale,
                       fmt::format("Static activation scales from --calibration, where loaders of the format read "
                                   "them: amax, a percentile (p99.9), or none. Default: {}",
                                   convert::ConvertOptions().input_scale)),
        how)
      ->type_name("RULE");
  group(app.add_option("--smooth", a.smooth,
                       "Let weights take over size from outlier channels of inputs that are quantized, too "
                       "(SmoothQuant), by this exponent, usually 0.5. Needs --calibration; for formats that have a "
                       "place for the factors, and for layers of text encoders behind a norm")
            ->check(CLI::Range(0.0, 1.0).description("")),
        how)
      ->type_name("ALPHA");
  std::string optimizers = "Instead of what --effort stands for: ";
  for (const auto& [optimizer, summary] : convert::optimizer_names())
    optimizers += fmt::format("{}{} ({})", optimizers.ends_with(": ") ? "" : "; ", optimizer, summary);
  group(app.add_option("--optimizer", a.optimizer, optimizers), how)->type_name("NAME");
  const convert::SubspaceRank rank;
  group(app.add_option(
            "--top-p", a.top_p,
            fmt::format("Rank of --optimizer learned, as a share of the shorter side. Default: {}", rank.top_p)),
        how)
      ->type_name("SHARE");
  group(app.add_option("--min-k", a.min_k, fmt::format("But at least this rank. Default: {}", rank.min_k)), how)
      ->type_name("N");
  group(app.add_option("--max-k", a.max_k, fmt::format("And at most this rank. Default: {}", rank.max_k)), how)
      ->type_name("N");
  group(app.add_option("--bf16-compute", a.bf16_compute,
                       "What ldlq and learned derive from weights in bf16 products, where the processor has them: auto "
                       "(default) only from bf16 weights, which loses nothing, on from all weights, off nothing"),
        how)
      ->type_name("MODE");
  group(app.add_flag("--no-bias-correction", a.no_bias_correction,
                     "Leave biases alone although --calibration tells what rounding does to mean outputs"),
        how);
  group(app.add_option("--max-memory", a.max_memory, "Bound of the buffers. Default: 1GiB"), how)->type_name("SIZE");
  group(app.add_option("--max-shard-size", a.max_shard_size,
                       "Split the output into files of at most this size and an "
                       "index"),
        how)
      ->type_name("SIZE");
  group(
      app.add_option("--streaming-mode", a.streaming_mode,
                     "Old names for --max-memory: off 8GiB, minimal 4GiB, balanced 1GiB, aggressive 256MiB, auto 1GiB"),
      how)
      ->type_name("NAME");
  add_threads_option(app, a.threads);
  add_merge_options(app, a.merge);
  add_lora_options(app, a.lora);
}

convert::ConvertOptions read_options(const ConversionArguments& a) {
  convert::ConvertOptions options;
  if (!a.recipe.empty()) options = read_recipe(a.recipe);
  if (a.to) options.to = *a.to;
  if (a.fallback) options.fallback = *a.fallback;
  if (a.preset) options.preset = *a.preset;
  if (a.component) options.component = *a.component;
  if (!a.include.empty()) options.include = a.include;
  if (!a.exclude.empty()) options.exclude = a.exclude;
  if (!a.drop.empty()) options.drop = a.drop;
  if (!a.layer_config.empty()) options.layer_config = read_text(a.layer_config);
  if (a.fullmatch) options.layer_config_fullmatch = true;
  if (a.full_precision_matrix_mult) options.full_precision_matrix_mult = true;
  if (a.rounding) {
    if (*a.rounding != "nearest" && *a.rounding != "stochastic")
      throw UsageError(fmt::format("--rounding has no mode '{}'. It is nearest or stochastic.", *a.rounding));
    options.rounding = *a.rounding == "stochastic" ? Rounding::Mode::stochastic : Rounding::Mode::nearest_even;
  }
  if (a.seed) options.seed = *a.seed;
  if (a.effort) options.effort = *a.effort;
  if (a.smooth) options.smooth = *a.smooth;
  if (a.no_bias_correction) options.no_bias_correction = true;
  if (a.optimizer) options.optimizer = *a.optimizer;
  if (a.top_p) options.subspace.top_p = *a.top_p;
  if (a.min_k) options.subspace.min_k = *a.min_k;
  if (a.max_k) options.subspace.max_k = *a.max_k;
  options.subspace.check();
  if (a.bf16_compute) {
    const auto mode = convert::parse_bf16_compute(*a.bf16_compute);
    if (!mode)
      throw UsageError(fmt::format("--bf16-compute has no mode '{}'. It is auto, on or off.", *a.bf16_compute));
    options.bf16_compute = *mode;
  }
  if (!a.calibration.empty()) options.calibration = a.calibration;
  if (a.input_scale) options.input_scale = *a.input_scale;
  convert::parse_input_scale(options.input_scale);
  apply_merge(a.merge, options);
  apply_loras(a.lora, options);
  if (a.rounding && !options.merge_loras.empty() && options.rounding == Rounding::Mode::nearest_even)
    options.merge_rounding = convert::MergeRounding::nearest;
  if (a.max_memory && a.streaming_mode)
    throw UsageError("--max-memory and --streaming-mode say the same thing; give one of them.");
  if (a.max_memory) options.max_memory = parse_size(*a.max_memory);
  if (a.streaming_mode) options.max_memory = streaming_mode_memory(*a.streaming_mode);
  if (a.max_shard_size) options.max_shard_bytes = parse_size(*a.max_shard_size);
  if (!options.to.empty()) formats::select_format(options.to);
  if (!options.fallback.empty()) formats::select_format(options.fallback);
  return options;
}

}  // namespace mezzotint::cli
