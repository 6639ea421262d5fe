#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/checkpoint/finding.h"
#include "mezzotint/formats/format.h"
#include "mezzotint/io/reader.h"

/// What the tensors of a file mean: which of them form quantized layers, in every dialect that is around.
///
///   comfy_quant  a U8 tensor `<layer>.comfy_quant` holding a JSON marker
///   header       the metadata entry `_quantization_metadata` (both shapes: objects, and the old bare strings)
///   scaled_fp8   a tensor `<prefix>scaled_fp8` and `.scale_weight` / `.scale_input`
///   inferred     scales without any marker: recognised by dtypes and shapes
///
/// File-level metadata wins over a per-layer marker, as in ComfyUI; where they differ that is a finding.
namespace mezzotint::checkpoint {

enum class Dialect : uint8_t { comfy_quant, header, scaled_fp8, inferred };
std::string_view name(Dialect dialect);

/// A quantized layer of the file.
struct Layer {
  std::string name;           ///< key of the weight without ".weight"
  formats::Layout layout;     ///< canonical: what we would store for the same codes
  std::vector<size_t> parts;  ///< source tensor of every layout.tensors[i]; [0] holds the codes
  Dialect dialect = Dialect::inferred;
  bool full_precision_matrix_mult = false;
  bool consistent = true;  ///< false where `parts` cannot be read as the layout says (Fit::broken)
  std::string marker;      ///< the effective marker as JSON text, "" where there is none
  std::optional<size_t> marker_tensor;
  std::optional<size_t> input_scale;      ///< activation scale, F32 scalar in a well-formed file
  std::optional<size_t> pre_quant_scale;  ///< smoothing factors [K]
  bool smoothed = false;                  ///< whether loaders multiply the layer's input by pre_quant_scale: its weight
                                          ///< is what the codes decode to, times diag(pre_quant_scale)
};

/// What one source tensor is.
enum class Role : uint8_t {
  plain,        ///< not part of quantization, or of a foreign layer
  codes,        ///< weight of a quantized layer
  parameter,    ///< scale or other parameter of a quantized layer
  activation,   ///< input_scale or pre_quant_scale of a quantized layer
  marker,       ///< .comfy_quant of a quantized layer
  file_marker,  ///< scaled_fp8
  orphan,       ///< a scale or marker whose layer is not quantized
};

class Model {
 public:
  static Model open(const std::filesystem::path& path);
  explicit Model(io::Source source);

  const io::Source& source() const { return source_; }
  const std::vector<Layer>& layers() const { return layers_; }
  Role role(size_t tensor) const { return roles_[tensor]; }
  /// Layer that a tensor belongs to, or npos.
  static constexpr size_t npos = static_cast<size_t>(-1);
  size_t layer_of(size_t tensor) const { return layer_of_[tensor]; }
  /// What reading the markers brought to light; verify() adds the checks that need tensor data.
  const std::vector<Finding>& findings() const { return findings_; }
  bool has_header_metadata() const { return has_header_metadata_; }
  /// Layers marked with a format that is not compiled in, as (name, marker text). Their tensors are plain: they can be
  /// copied but not decoded. The same goes for a weight whose dtype its marker's format cannot have. The text says what
  /// the file says, in a spelling of JSON of our own.
  const std::vector<std::pair<std::string, std::string>>& foreign_layers() const { return foreign_layers_; }
  /// Whether a tensor stands beside the weight of a foreign layer, or is it.
  bool is_foreign(size_t tensor) const { return foreign_[tensor]; }

  /// Parameters of a layer, converted to the canonical dtypes and shapes. [0] (codes) is empty.
  formats::Parameters parameters(const Layer& layer) const;
  /// Reads the stored codes of `rows` rows from row `row0` (all of one expert); all stored rows of the expert where its
  /// layout decodes only whole: Layout::code_rows(rows) of them.
  void read_codes(const Layer& layer, int64_t row0, int64_t rows, std::byte* into) const;

 private:
  friend class ModelBuilder;
  io::Source source_;
  std::vector<Layer> layers_;
  std::vector<Role> roles_;
  std::vector<size_t> layer_of_;
  std::vector<Finding> findings_;
  std::vector<std::pair<std::string, std::string>> foreign_layers_;
  std::vector<bool> foreign_;
  bool has_header_metadata_ = false;
};

}  // namespace mezzotint::checkpoint
