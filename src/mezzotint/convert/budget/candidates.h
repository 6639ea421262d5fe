#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/plan.h"

/// Which layers a size budget decides over, in which formats each of them can be, and what a choice among them is as
/// options of an ordinary conversion.
namespace mezzotint::convert {

/// A format in the words of whoever asked for it, which recipes keep.
struct NamedFormat {
  std::string text;
  formats::Selection selection;
};

/// One format for one layer, as a plan with it says.
struct LayerFormat {
  std::string label;          ///< what the layer becomes: PlanRow::to, a plain dtype by its format's name
  std::string asked;          ///< "format" of the layer config; "" = keep the layer as it is
  uint64_t stored_bytes = 0;  ///< PlanRow::bytes_out
  uint64_t header_bytes = 0;  ///< what it adds to the file's header; an estimate, good to some bytes per tensor
  uint64_t entry_bytes = 0;   ///< the same of its entry in the layer config, where it needs one
  bool exact = false;         ///< the layer's values do not change
  std::optional<formats::Layout> layout;  ///< where they do
  int effort = 0;
};

struct FormatLayer {
  std::string name;                        ///< full name without ".weight"
  size_t tensor = 0;                       ///< the weight in the source
  size_t layer = checkpoint::Model::npos;  ///< source layer, if it is quantized
  Shape shape;
  std::vector<LayerFormat> formats;  ///< at least one, in the order asked for
};

class FormatCandidates {
 public:
  /// The layers that a conversion to any of the quantized `formats` would quantize, but for those that the user's layer
  /// config decides. `uniform` = only those that the first format would. Throws Error "nothing-to-choose" where there
  /// are none, and what make_plan throws.
  FormatCandidates(const checkpoint::Model& model, std::filesystem::path output, ConvertOptions options,
                   std::vector<NamedFormat> formats, bool uniform);

  const std::vector<FormatLayer>& layers() const { return layers_; }

  /// The format that layers without an entry get: at first the first quantized one. No choice depends on it, but the
  /// size of the header does.
  const std::string& default_format() const { return options_.to; }
  void set_default_format(const NamedFormat& format);

  /// The options that give every layer the format chosen for it: `to` is the default format, and a layer config has an
  /// entry for every layer that differs, merged with the user's own (whose other fields stay).
  ConvertOptions with(const std::vector<size_t>& choice) const;
  Plan plan(const std::vector<size_t>& choice) const;

 private:
  void find_layers(bool uniform);
  void add_format(const NamedFormat& format);
  ConvertOptions with_entries(const std::vector<std::string>& asked) const;

  const checkpoint::Model* model_;
  std::filesystem::path output_;
  ConvertOptions options_;
  std::vector<NamedFormat> formats_;
  std::vector<FormatLayer> layers_;
  std::vector<std::string> fields_;  ///< by layer: JSON object with what the user's entry says beside the format
};

}  // namespace mezzotint::convert
