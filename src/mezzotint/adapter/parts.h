#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/adapter/family.h"
#include "mezzotint/checkpoint/model.h"

/// Which parts a checkpoint has that adapters are made for (room-internal).
namespace mezzotint::adapter {

enum class PartKind : uint8_t { diffusion, clip_l, clip_g, clip_h, t5, language_model, other };

/// Tensors under one prefix.
struct ModelPart {
  PartKind kind = PartKind::other;
  std::string prefix;  ///< with its last dot; "" = what no other part has
  Names names;         ///< without it
};

/// Parameters of quantized layers are left out; weights have the shapes that the model computes with.
std::vector<ModelPart> find_parts(const checkpoint::Model& model);
/// The same of all tensors of a model, in any order.
std::vector<ModelPart> find_parts(const Names& tensors);

/// Prefixes that adapters put in front of the names of a part.
struct Prefixes {
  std::vector<std::string> dotted;       ///< of names as they are
  std::vector<std::string> underscored;  ///< of names with underscores for dots
};
Prefixes adapter_prefixes(const ModelPart& part, const std::vector<ModelPart>& all);

}  // namespace mezzotint::adapter
