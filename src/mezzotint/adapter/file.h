#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/checkpoint/model.h"

/// Adapter files, in every dialect: kohya, LyCORIS, PEFT, diffusers (three of its own), Mochi, transformers, BFL's
/// control LoRAs, USO, Wan Fun. A key is a target and a suffix (algorithms/*.cpp list them, the longest counts); keys
/// under one target are the patches of it, as many as there are complete algorithms. Nothing is dropped silently: what
/// is no part of a patch is in unused(), with the reason.
namespace mezzotint::adapter {

enum class Parameter : uint8_t { weight, bias };

/// One change of one parameter, not read yet.
struct Patch {
  std::string target;   ///< as the file names the layer
  std::string variant;  ///< of PEFT files with several adapters: its name, else ""
  const Algorithm* algorithm = nullptr;
  Parameter parameter = Parameter::weight;
  Parts parts;
  std::optional<double> alpha;
  bool rank_stabilized = false;
  double factor = 1;  ///< Factors::factor
  bool constraint_per_row = false;
  std::optional<Part> magnitude;  ///< DoRA's
  bool peft_magnitude = false;    ///< one of outputs, whatever its shape
  Shape enlarged;                 ///< what a tensor reshape_weight says, where the file has none but means one
};

struct UnusedKey {
  std::string key;     ///< as the file has it
  std::string reason;  ///< one clause
};

struct ReadOptions {
  /// What alpha of OFT and BOFT bounds the norm by: alpha (ComfyUI's trainer), or alpha times the rows of the weight
  /// (LyCORIS, kohya). Unset: by the file's metadata, and alpha itself where these name no trainer.
  std::optional<bool> constraint_per_row;
};

class AdapterFile {
 public:
  /// A file, or a folder that PEFT saved (adapter_model.safetensors). Alphas come from the file; else from metadata
  /// (diffusers' lora_adapter_metadata), else from an adapter_config.json beside a file of PEFT's name. Throws Error
  /// "no-adapter" where nothing in it is one, "bad-adapter", "bad-adapter-config", and those of io::Source::open.
  static AdapterFile open(const std::filesystem::path& path, const ReadOptions& options = {});
  /// The same for a file that is open already; `config` is the text of an adapter_config.json or "".
  explicit AdapterFile(io::Source source, const ReadOptions& options = {}, std::string_view config = "");

  const std::vector<Patch>& patches() const { return patches_; }
  const std::vector<UnusedKey>& unused() const { return unused_; }
  /// Things a person should know: which rewrite was applied, where alphas come from.
  const std::vector<std::string>& notes() const { return notes_; }
  const io::Source& source() const { return model_->source(); }
  /// Bytes that a patch's tensors take as float32.
  uint64_t bytes(const Patch& patch) const;

  Tensor read(const Part& part) const;
  Factors read(const Patch& patch) const;

 private:
  friend class AdapterFileReader;
  std::shared_ptr<const checkpoint::Model> model_;  // quantized factors are decoded like any layer
  std::vector<Patch> patches_;
  std::vector<UnusedKey> unused_;
  std::vector<std::string> notes_;
};

/// Reads a patch for a weight of this shape. Throws Error "adapter-shape" where it does not fit it.
std::unique_ptr<const Effect> load(const AdapterFile& file, const Patch& patch, const Shape& weight);

/// Why a patch does not fit a weight of this shape, one clause, or "". Looks at shapes only.
std::string misfit(const Patch& patch, const Shape& weight);

/// What the effect of a patch that fits will be, before its factors are read.
struct Outlook {
  Shape shape;          ///< Effect::shape(); only for this a tensor is read, where there is a reshape_weight
  int64_t granule = 1;  ///< Effect::granule()
  int64_t rank = 0;     ///< of Effect::low_rank(), 0 where there is none
};
Outlook outlook(const AdapterFile& file, const Patch& patch, const Shape& weight);

}  // namespace mezzotint::adapter
