#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/rounding.h"
#include "mezzotint/convert/optimizers/subspace_rank.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::convert {

/// The recipe that options were taken from, where it has a name. It decides no tensor's bytes: headers say it.
struct NamedRecipe {
  std::string name;  ///< "" = none
  uint64_t revision = 1;
  std::string text;                   ///< recipe_json of the options that it set
  std::vector<std::string> modified;  ///< fields that differed from the named recipe's already in what was read
};

/// Whether second moments of weights are computed from bf16 (ObjectiveOptions::bf16_moments).
enum class Bf16Compute : uint8_t {
  automatic,  ///< where weights are stored so and the processor multiplies bf16: nothing is lost
  on,         ///< wherever the processor does: other weights are rounded to bf16 first
  off,
};
/// "auto", "on", "off"
std::string_view name(Bf16Compute mode);
std::optional<Bf16Compute> parse_bf16_compute(std::string_view text);

/// An adapter file that is multiplied into the weights.
struct MergeLora {
  std::string file;
  double strength = 1;

  bool operator==(const MergeLora&) const = default;
};

/// How layers that keep their quantized format are rounded where adapters change them.
enum class MergeRounding : uint8_t {
  feedback,  ///< with feedback in the adapters' input space, where they have one (merging/feedback.h)
  nearest,
  stochastic,
};
/// "feedback", "nearest", "stochastic"
std::string_view name(MergeRounding mode);
std::optional<MergeRounding> parse_merge_rounding(std::string_view text);

/// Everything a person can ask of a conversion. Pure data: the same options and the same header give the same plan.
struct ConvertOptions {
  NamedRecipe recipe;
  // names a format: the default of the product
  std::string to = "float8_e4m3fn";  ///< as in formats::select_format, or "": every tensor keeps its format
  std::string fallback;  ///< format for layers that `to` cannot take, or a preset or --exclude keeps; "" = keep them
  std::string preset = "auto";          ///< "auto", a preset's name, or "none" (no architecture rules at all)
  std::string component;                ///< "" = the diffusion model (or the only one), a component's name, or "all"
  std::vector<std::string> include;     ///< regex: quantize although a rule keeps the layer
  std::vector<std::string> exclude;     ///< regex: keep
  std::vector<std::string> drop;        ///< regex: leave the tensor out of the output
  std::string layer_config;             ///< JSON text of a layer config, or ""
  bool layer_config_fullmatch = false;  ///< its patterns must match the whole name
  bool full_precision_matrix_mult = false;
  Rounding::Mode rounding = Rounding::Mode::nearest_even;
  uint64_t seed = 0;      ///< of stochastic rounding and of the optimizer "quip"
  int effort = 1;         ///< 0 plain, 1 the cheap wins, 2 full search and ldlq, 3 coordinate descent
  std::string optimizer;  ///< a name of optimizer_names(), or "" for what the effort stands for
  SubspaceRank subspace;  ///< of the optimizer "learned"
  Bf16Compute bf16_compute = Bf16Compute::automatic;
  std::vector<std::string> calibration;  ///< files of activation statistics (calibration/calibration.h)
  std::string calibration_fingerprint;   ///< of those files, as make_plan finds or a recipe wants it
  std::string input_scale = "amax";      ///< activation scales from them: as in parse_input_scale
  std::optional<double> smooth;          ///< 0 ... 1: shift inputs' size into weights (optimizers/smoothing.h)
  bool no_bias_correction = false;       ///< leave biases alone although calibration tells what their layers lose
  std::vector<MergeLora> merge_loras;    ///< in this order
  bool merge_dampen = true;              ///< the n-th of them with 0.9^(n-1) of its strength
  bool merge_strict = false;             ///< an error where anything in them has no place in the model
  MergeRounding merge_rounding = MergeRounding::feedback;
  std::string merge_original;                ///< model with the unquantized weights of what is quantized here, or ""
  std::vector<MergeLora> scale_loras;        ///< not merged: scales hold the weights with these, too (lora_aware/use.h)
  std::vector<MergeLora> calibration_loras;  ///< not merged: rounding spares the inputs that these read
  bool lora_strict = false;                  ///< merge_strict for these two
  uint64_t max_memory = 1ull << 30;          ///< bound of the buffers, in bytes
  uint64_t max_shard_bytes = 0;              ///< 0 = one file
};

}  // namespace mezzotint::convert
