#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mezzotint/adapter/family.h"
#include "mezzotint/adapter/file.h"
#include "mezzotint/checkpoint/model.h"

/// Which tensors of a checkpoint an adapter means. A name in an adapter file is a prefix ("lora_unet_", "transformer.",
/// "text_encoder_2.", ..., or none) and a layer's name, dotted or with underscores for dots; the layer's name is that
/// of the checkpoint or, by the tables of its family, of diffusers. All prefixes are known for all families: what
/// ComfyUI lists family by family (comfy/lora.py) is a part of that.
namespace mezzotint::adapter {

/// One patch and the tensor that it changes.
struct Match {
  size_t patch = 0;                        ///< in AdapterFile::patches()
  size_t tensor = 0;                       ///< of the checkpoint: the weight, or codes of a quantized one, or the bias
  size_t layer = checkpoint::Model::npos;  ///< quantized layer that the tensor is the weight of
  Target target;                           ///< with the layer's full name in the checkpoint
  Shape shape;                             ///< of the whole tensor, as the model computes with it
};

struct UnmatchedPatch {
  size_t patch = 0;
  std::string reason;  ///< one clause
};

/// What becomes of a file's patches on a checkpoint.
struct Matching {
  std::vector<Match> matches;
  std::vector<UnmatchedPatch> unmatched;
  std::vector<std::string> families;  ///< whose names were known
};

/// "lora.safetensors: 304 of 304 patches (304 lora) on 152 tensors", and one line for each kind of thing left out, with
/// how many and an example.
std::string summary(const AdapterFile& file, const Matching& matching);

/// For --strict. Throws Error "unmatched-adapter-keys" where a patch has no tensor or a key no patch.
void require_all(const AdapterFile& file, const Matching& matching);

struct ModelPart;

class KeyMap {
 public:
  /// The model must outlive it.
  explicit KeyMap(const checkpoint::Model& model);

  /// For a model that is no file: the names and shapes of its tensors. It has find() and families().
  explicit KeyMap(const Names& tensors);

  /// The layer that a target means, by its full name; nothing where the model has none of that name, or several that
  /// underscores do not tell apart.
  std::optional<Target> find(std::string_view target) const;
  /// The tensor that holds a layer's weight or bias, or npos.
  size_t tensor(const Target& target, Parameter parameter) const;
  const std::vector<std::string>& families() const { return families_; }

  /// Finds every patch's tensor and holds their shapes beside one another; no data is read. One that enlarges its
  /// weight is matched like others. Patches on the same tensor come in the order of the file.
  Matching match(const AdapterFile& file) const;

 private:
  struct Meaning {
    std::optional<Target> target;  ///< nothing where two layers would be called so
    bool own = false;              ///< the checkpoint's own name
  };
  /// The names of one part of the model.
  struct Space {
    std::vector<std::string> dotted, underscored;  ///< prefixes, longest first
    std::map<std::string, Meaning, std::less<>> by_dots, by_underscores;

    void add(const std::string& name, const Target& target, bool own);
    std::optional<Target> find(std::string_view target) const;
  };
  /// Why there is no match, or "".
  std::string match_one(const Patch& patch, Match& match) const;

  void add_parts(const std::vector<ModelPart>& parts);

  const checkpoint::Model* model_ = nullptr;
  std::vector<Space> spaces_;
  std::vector<std::string> families_;
  bool has_text_encoder_ = false;
};

}  // namespace mezzotint::adapter
