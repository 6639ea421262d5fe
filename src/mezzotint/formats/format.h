#pragma once
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/dtype.h"
#include "mezzotint/base/rounding.h"
#include "mezzotint/formats/bytes.h"
#include "mezzotint/formats/options.h"

/// What a quantization format is: one constant row of facts and functions (struct Format), one folder, one name.
///
/// Everything else (converter, inspector, verifier, runtime, tests, fuzzing, benchmarks) iterates over the table of
/// rows and knows no format by name. docs/adding-a-format.md walks through a new one.
///
/// A weight is a row-major matrix [rows, cols] = [out_features, in_features]. A bank of experts [E, N, K] is handled as
/// E * N rows; a format that keeps one parameter per expert finds the expert as row / layout.rows.
namespace mezzotint::formats {

struct Format;
struct MatmulForm;

/// One tensor a layer stores, as `<layer>.<suffix>`.
struct StoredTensor {
  std::string suffix;
  DType dtype;
  Shape shape;
};

/// What a tensor is used for, as far as a format cares.
enum class LayerKind : uint8_t { linear, embedding, expert_bank, convolution, other };

struct LayerFacts {
  Shape shape;  ///< logical shape of the weight as the module sees it, [N, K] or [E, N, K]
  LayerKind kind = LayerKind::linear;
  bool bias = false;  ///< whether the module is known to have a bias
};

/// A format applied to one shape: everything about the stored bytes that is known before a value is read.
struct Layout {
  const Format* format = nullptr;
  Options options;  ///< complete: every option of the format has a value
  Shape shape;      ///< logical, [N, K] or [E, N, K]
  int64_t experts = 1;
  int64_t rows = 0;                   ///< N, per expert
  int64_t cols = 0;                   ///< K
  std::vector<StoredTensor> tensors;  ///< [0] is the weight's codes, then the parameters
  int64_t stored_rows = 0;            ///< rows of codes per expert: N, or more where the format pads
  int64_t row_bytes = 0;              ///< stored bytes of one row of codes
  int64_t row_granule = 1;            ///< tiles of rows start and end at multiples of this within their expert (or end
                                      ///< at its last row); a tile never spans two experts
  int64_t block_rows = 0;             ///< rows x cols of weight that share one scale; 0 = the whole dimension
  int64_t block_cols = 0;
  bool transformed = false;  ///< whether `Format::transform` is applied in front of the codes
  /// Whether rows are mixed: decode wants all rows of an expert at once, with `codes` holding all its stored rows. Then
  /// row_granule is `rows`. Only for formats that are not writable.
  bool decodes_whole = false;
  std::string note;  ///< describe: what was asked for and this shape cannot have, one clause; the plan shows it
  std::string flaw;  ///< recognise: why no loader can use a layer although it decodes, one or more sentences; such
                     ///< codes are not worth keeping and cannot be repaired

  int64_t total_rows() const { return experts * rows; }
  /// Row of the stored codes that holds row `row` of the weight (0 <= row < total_rows()).
  int64_t stored_row(int64_t row) const { return row / rows * stored_rows + row % rows; }
  /// Rows of codes that decoding `count` rows at once takes.
  int64_t code_rows(int64_t count) const { return decodes_whole ? stored_rows : count; }
};

/// Either a layout, or one clause that says why this shape cannot be stored ("K = 100 is not a multiple of 128").
struct Description {
  std::optional<Layout> layout;
  std::string refusal;
};

/// Bytes of the stored tensors, parallel to Layout::tensors. [0], the codes, stays empty where they are streamed.
struct Parameters {
  std::vector<Bytes> tensors;
};

/// A rectangle of source values: `data` points at element (row0, col0); rows are `row_stride` elements apart.
struct Tile {
  const void* data = nullptr;
  DType dtype = DType::f32;  ///< f32, bf16 or f16; all arithmetic is done in float32
  int64_t row0 = 0, rows = 0;
  int64_t col0 = 0, cols = 0;
  int64_t row_stride = 0;
};

/// How parameters are chosen.
struct ChooseOptions {
  std::span<const float> column_weight;  ///< importance of every column (second moments), or empty
  int effort = 0;                        ///< 0 = plain absmax, bit-equal to the reference; higher = search
};

/// How the choice of parameters goes over the weight.
struct ChoosePlan {
  int passes = 1;    ///< sweeps over the whole weight; 0 for formats without parameters
  size_t stats = 0;  ///< floats kept between tiles, zeroed before the first pass
  /// Whether the last pass is complete row granule by row granule: a tile may be encoded as soon as that pass observed
  /// it, and `finish` is not called after it.
  bool fused = false;
};

/// Who can use the format. Shown by `formats`, `convert` and `inspect`.
struct Support {
  bool comfyui = false;           ///< ComfyUI's own ops load it
  std::string_view loaders;       ///< programs that load it, one line
  std::string_view fast_on;       ///< hardware with a native matrix product, one line
  std::string_view nearest = "";  ///< where comfyui is false: the nearest format name that it can load
};

/// Facts about one tensor of a stored layer, names already in today's dialect ("weight", "weight_scale", ...).
struct TensorFacts {
  std::string suffix;
  DType dtype;
  Shape shape;
};

/// A layer found in a file, before anyone knows what it is.
struct StoredLayer {
  std::string_view label;                  ///< the marker's "format", or empty where there is no marker
  const nlohmann::json* marker = nullptr;  ///< the marker's object with nested "params" flattened, or null
  std::vector<TensorFacts> tensors;        ///< [0] is the weight
  std::optional<int64_t> rows_hint;        ///< out_features as the bias tells it
  const TensorFacts* find(std::string_view suffix) const;
};

/// How well a stored layer fits a format. Ordered: the format with the highest value takes the layer, and a test sees
/// to it that no two formats share the highest. (So a clean layer of another format under this one's name is not
/// `broken`.)
enum class Fit : uint8_t {
  none,         ///< not this format
  unlabelled,   ///< no marker, and the dtypes and shapes are this format's
  broken,       ///< this format's name, but something is missing or has a wrong shape: `problems` says what
  mislabelled,  ///< a marker of another name, but the dtypes and shapes are this format's and not that one's
  labelled,     ///< this format's name (or a plain dtype without a marker), dtypes and shapes. `problems` may still
                ///< hold what canonical dtypes and shapes would mend (a scale [1] for [], BF16 for F32)
};

struct Recognition {
  Fit fit = Fit::none;
  Layout layout;                      ///< canonical: what a repaired file would store; `format` is null where a broken
                                      ///< layer does not tell enough to know
  std::vector<std::string> problems;  ///< one sentence each; what verify reports and repair mends
};

/// What becomes of the float32 scales of a stored weight that is changed and encoded again. A scale that moves costs
/// every weight below it a second rounding, also those that nothing changed.
enum class ScaleUpdate : uint8_t {
  fresh,         ///< chosen anew
  enough,        ///< the stored one stays where the new one is hardly smaller and no larger: codes are integers
  power_of_two,  ///< the stored one, times a power of two where the new one is larger: codes are floats
};

/// One format. All functions are pure and safe to call from several threads; none is null unless it says so.
struct Format {
  std::string_view name;     ///< as in a marker's "format", lower case
  std::string_view summary;  ///< one line for help texts
  std::span<const Alias> aliases;
  std::span<const OptionSpec> options;
  Support support;
  bool quantized = true;  ///< false for plain dtypes: no marker, no parameters
  bool writable = true;   ///< false for formats that are only read: describe refuses every shape and says why, encode
                          ///< and error_bound are null

  /// What will be stored for this shape. Called before any byte is read.
  Description (*describe)(const LayerFacts& facts, const Options& options);

  // --- choosing parameters (scales) -------------------------------------------------------------------------------
  /// Fills parameters that are the same for every weight (a fixed table), once, before the first pass; null = none.
  void (*constants)(const Layout& layout, Parameters& parameters) = nullptr;
  /// Passes and memory of one choice; null = no parameters, nothing to choose.
  ChoosePlan (*choose_plan)(const Layout& layout, const ChooseOptions& choose) = nullptr;
  /// Looks at whole rows of one tile (after the transform). Tiles of one pass may come in any order and from several
  /// threads at once, and never share a granule of rows; what a call writes must depend on its rows only. Null where
  /// choose_plan is null. Returns whether an inf or NaN was seen: these take no part in the choice.
  bool (*observe)(const Layout& layout, const ChooseOptions& choose, int pass, const Tile& tile, float* stats,
                  Parameters& parameters) = nullptr;
  /// Reduces statistics after pass `pass` saw every row; not called after a fused last pass. Null where never needed.
  void (*finish)(const Layout& layout, const ChooseOptions& choose, int pass, float* stats,
                 Parameters& parameters) = nullptr;

  // --- codes ------------------------------------------------------------------------------------------------------
  /// Encodes the tile (after the transform) with the given parameters, which need not come from `observe`: values out
  /// of range saturate (plain dtypes: become inf). `codes` points at the stored row of `tile.row0` (Layout::stored_row)
  /// and rows are `layout.row_bytes` apart. The buffer was zero-filled once; any range of columns may come alone and
  /// changes the bits of its own columns only.
  void (*encode)(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
                 std::byte* codes);
  /// The exact inverse map code -> float32 of the same rectangle (before the inverse transform); `codes` as above,
  /// `out` rows `out_stride` floats apart.
  void (*decode)(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
                 int64_t cols, const std::byte* codes, float* out, int64_t out_stride);
  /// The same values rounded to bf16, bit-equal to `decode` and kernel::cast (but for the bits of NaN where code and
  /// scale are both NaN); null = those two. Rows of layouts that are transformed go through float32 all the same.
  void (*decode_bf16)(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0,
                      int64_t cols, const std::byte* codes, uint16_t* out, int64_t out_stride) = nullptr;
  /// Upper bound of |value - decode(encode(value))| for every element of a float32 tile under nearest rounding, derived
  /// from the codec; twice it bounds stochastic rounding. +inf where the value is not finite. `bound` rows are
  /// `tile.cols` floats apart.
  void (*error_bound)(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound);

  /// Linear map of whole float32 rows in front of the codes (rotation) or its inverse; null = never. Applied by the
  /// driver where layout.transformed.
  void (*transform)(const Layout& layout, float* rows, int64_t count, bool inverse) = nullptr;
  /// Multiplies what the codes decode to by 2^exponent, through the parameters alone; false where they cannot hold it.
  bool (*scale_by_power_of_two)(const Layout& layout, Parameters& parameters, int exponent) = nullptr;
  ScaleUpdate scale_update = ScaleUpdate::fresh;

  // --- products ---------------------------------------------------------------------------------------------------
  /// The stored codes and scales of one expert as the matrix kernels read them (formats/matmul.h); null = products
  /// decode the rows first. What it points to must live in `parameters`.
  MatmulForm (*matmul_form)(const Layout& layout, const Parameters& parameters, int64_t expert) = nullptr;

  // --- files ------------------------------------------------------------------------------------------------------
  /// Suffixes of further tensors that loaders of this format read beside the layer ("input_scale").
  std::span<const std::string_view> companions;
  /// What loaders divide the largest activation by for their scale of activations (the largest code, times the largest
  /// block scale where there are blocks): input_scale = amax / this. 0 where no loader uses a stored input_scale.
  float input_scale_divisor = 0;
  /// Adds the format's own keys to a marker that already holds "format"; null = none.
  void (*marker)(const Layout& layout, nlohmann::ordered_json& object) = nullptr;
  /// Decides whether a stored layer is of this format.
  Recognition (*recognise)(const StoredLayer& layer);
  /// Further checks of parameter values (finite, positive, ...), one sentence each; null = only the generic ones.
  void (*verify)(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) = nullptr;
};

/// Every format compiled in, in a fixed order (the folders' names).
std::span<const Format* const> all_formats();

/// A format by name or alias, with the options that an alias sets and those after a colon:
/// "int8_blockwise:block_size=64". Throws Error "unknown-format" or "bad-option" naming what exists.
struct Selection {
  const Format* format = nullptr;
  Options options;            ///< complete
  std::string label() const;  ///< text that selects the same again: the name and what differs from the defaults
};
Selection select_format(std::string_view text);
/// Fills options that are not given with the format's defaults; throws on unknown names or values.
Options complete_options(const Format& format, const Options& given);

}  // namespace mezzotint::formats
