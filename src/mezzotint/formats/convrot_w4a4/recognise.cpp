#include "mezzotint/formats/convrot_w4a4/recognise.h"

#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/convrot.h"
#include "mezzotint/formats/common/pieces.h"

namespace mezzotint::formats::convrot_w4a4 {
namespace {

constexpr std::string_view kName = "convrot_w4a4";

/// What the marker says, or a sentence about what it must not say.
struct Marked {
  Options options;
  std::string problem;
};
Marked marked(const StoredLayer& layer) {
  Marked result;
  const auto group = convrot::marker_group(layer);
  if (!group) {
    result.problem = "convrot_groupsize in the marker is no rotation: it must be a power of 4 from 4 to 4096.";
    return result;
  }
  result.options.set(convrot::kGroup, std::to_string(*group));
  const auto found = layer.marker->find(kLinearDtype);
  if (found == layer.marker->end()) return result;
  const std::string text = found->is_string() ? found->get<std::string>() : found->dump();
  if (text != "int4" && text != "int8")
    result.problem = "linear_dtype in the marker is " + text + ", and ComfyUI loads only int4 and int8.";
  result.options.set(kLinearDtype, text == "int8" ? "int8" : "int4");
  return result;
}

}  // namespace

Recognition recognise(const StoredLayer& layer) {
  // Codes and scales look like those of int8 layers of half the width: without the label nothing else can be meant.
  if (layer.label != kName || layer.marker == nullptr || !layer.marker->is_object()) return {};
  const auto broken = [](std::string problem) { return Recognition{Fit::broken, {}, {std::move(problem)}}; };
  const TensorFacts& weight = layer.tensors[0];
  if (weight.dtype != DType::i8 && weight.dtype != DType::u8)
    return broken(tell(weight) + ", but " + std::string(kName) + " packs two codes into each I8.");

  const bool bank = weight.shape.size() == 3;
  Shape shape = weight.shape;
  if (shape.empty() || shape.back() > INT64_MAX / 2) return broken(tell(weight) + ", which is no matrix of codes.");
  shape.back() *= 2;
  const Marked mark = marked(layer);
  if (!mark.problem.empty()) return broken(mark.problem);
  const Description description = describe({shape, bank ? LayerKind::expert_bank : LayerKind::linear}, mark.options);
  if (!description.layout)
    return broken(tell(weight) + ", which cannot hold " + std::string(kName) + ": " + description.refusal + ".");

  const TensorFacts* scale = layer.find("weight_scale");
  if (scale == nullptr) return broken("weight_scale is missing; the codes mean nothing without it.");
  const Shape& wanted = description.layout->tensors[1].shape;
  Shape column = wanted;
  column.push_back(1);
  const bool one = element_count(wanted) == 1 && element_count(scale->shape) == 1;
  if (!is_scale_dtype(scale->dtype) || (scale->shape != wanted && scale->shape != column && !one))
    return broken(tell(*scale) + ", but " + std::string(kName) + " has one scale per row, F32 " + to_string(wanted) +
                  ".");

  Recognition recognition{Fit::labelled, *description.layout, {}};
  if (scale->shape != wanted)
    recognition.problems.push_back(tell(*scale) + "; ComfyUI loads that, but its kernels take only " +
                                   to_string(wanted) + ".");
  if (weight.dtype == DType::u8)
    recognition.problems.push_back(tell(weight) + "; the codes belong in I8, which is what loaders cast them to.");
  if (scale->dtype == DType::f64) recognition.problems.push_back(tell(*scale) + "; loaders expect F32.");
  return recognition;
}

}  // namespace mezzotint::formats::convrot_w4a4
