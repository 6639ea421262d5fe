#include <nlohmann/json.hpp>

#include "mezzotint/formats/asym_w4a8_int8/layout.h"
#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/pieces.h"

namespace mezzotint::formats::asym_w4a8_int8 {
namespace {

Recognition broken(std::string problem) {
  return {Fit::broken, {}, {std::move(problem)}};
}

/// What canonical dtypes and shapes would mend, tensor by tensor; "" in `fatal` unless it cannot be mended.
struct Differences {
  std::vector<std::string> mend;
  std::string fatal;
};
Differences compare(const StoredLayer& layer, const Layout& layout) {
  Differences differences;
  for (size_t i = 1; i < layout.tensors.size(); ++i) {
    const StoredTensor& wanted = layout.tensors[i];
    const TensorFacts* found = layer.find(wanted.suffix);
    if (found == nullptr) {
      differences.fatal = wanted.suffix + " is missing; the codes mean nothing without it.";
      return differences;
    }
    Shape column = wanted.shape;
    column.push_back(1);
    const std::string expected = std::string(mezzotint::name(wanted.dtype)) + " " + to_string(wanted.shape);
    const bool same_dtype =
        found->dtype == wanted.dtype || (wanted.dtype == DType::f8_e4m3 && found->dtype == DType::u8);
    const bool convertible = same_dtype || (wanted.dtype == DType::f32 && is_scale_dtype(found->dtype));
    if (!convertible || (found->shape != wanted.shape && found->shape != column)) {
      differences.fatal = tell(*found) + ", not " + expected + ".";
      return differences;
    }
    if (!same_dtype || found->shape != wanted.shape)
      differences.mend.push_back(tell(*found) + "; comfy-kitchen takes only " + expected + ".");
  }
  return differences;
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  if (layer.label != kName || layer.marker == nullptr || !layer.marker->is_object()) return {};
  const TensorFacts& weight = layer.tensors[0];
  if (weight.dtype != DType::i8 && weight.dtype != DType::u8)
    return broken(tell(weight) + ", but " + std::string(kName) + " packs codes into I8.");
  if (weight.shape.size() != 2)
    return broken(tell(weight) + ", which is no matrix of codes; loaders take this format for linear layers only.");
  const TensorFacts* relative = layer.find("weight_s_rel");
  if (relative == nullptr) return broken("weight_s_rel is missing; the codes mean nothing without it.");
  if (relative->shape.size() < 2) return broken(tell(*relative) + ", not one scale per row and group.");

  const auto rotated = convrot::marker_group(layer);
  if (!rotated)
    return broken("convrot_groupsize in the marker is no rotation: it must be a power of 4 from 4 to 4096.");
  const int64_t group = marker_integer(layer, kGroupSize, 16);
  const int64_t groups = relative->shape[1], bytes = weight.shape[1];
  // The width tells the bits: K / 2 bytes for 4, 3 K / 4 for 6.
  if (group < 4 || group > kernel::kLargestLevelGroup || groups < 1 || groups > bytes)
    return broken(tell(*relative) + " and group_size is " + std::to_string(group) +
                  " in the marker, which do not fit each other.");
  const int64_t cols = group * groups;
  const bool six = bytes == cols / 4 * 3 && cols % 4 == 0;
  if (!six && bytes * 2 != cols)
    return broken(tell(weight) + " and " + tell(*relative) + " with groups of " + std::to_string(group) +
                  ": that is neither 4 nor 6 bits per weight.");
  const bool table = layer.find("weight_codebook") != nullptr, shifted = layer.find("weight_correction") != nullptr;
  if ((six && (table || shifted)) || (table && shifted))
    return broken("The layer has a codebook or correction that its codes leave no room for.");

  Options options;
  const Codes codes = six ? Codes::six_bit : table ? Codes::codebook : shifted ? Codes::asymmetric : Codes::uniform;
  const auto said = layer.marker->find(kCodes);
  if (said != layer.marker->end() && said->is_string() && said->get_ref<const std::string&>() != name(codes))
    return broken("The marker says " + std::string(kCodes) + "=" + said->get<std::string>() +
                  ", but the tensors are those of " + std::string(name(codes)) +
                  ": weight_codebook or weight_correction is missing, or does not belong there.");
  options.set(kCodes, name(codes));
  options.set(kGroupSize, std::to_string(group));
  options.set(convrot::kGroup, std::to_string(*rotated));
  Description description = describe({{weight.shape[0], cols}, LayerKind::linear}, options);
  if (!description.layout)
    return broken(tell(weight) + ", which cannot hold " + std::string(kName) + ": " + description.refusal + ".");
  if (is_scale_dtype(relative->dtype)) description.layout->tensors[kRelative].dtype = DType::f32;
  Differences differences = compare(layer, *description.layout);
  if (!differences.fatal.empty()) return broken(std::move(differences.fatal));
  Recognition recognition{Fit::labelled, *description.layout, std::move(differences.mend)};
  if (shifted)
    recognition.layout.flaw =
        "ComfyUI does not read weight_correction: it loads the layer without a word and computes with wrong weights.";
  if (weight.dtype == DType::u8)
    recognition.problems.push_back(tell(weight) + "; the codes belong in I8, which is what loaders cast them to.");
  return recognition;
}

}  // namespace mezzotint::formats::asym_w4a8_int8
