#include "mezzotint/convert/components.h"

#include <gmock/gmock.h>

#include "convert/shapes.h"
#include "mezzotint/base/error.h"

namespace mezzotint::convert {
namespace {

using test::model_of;
using test::published;
using test::renamed;
using test::tensor;

std::vector<std::string> names(std::span<const Component> components) {
  std::vector<std::string> list;
  for (const Component& c : components) list.push_back(c.name + "=" + c.prefix);
  return list;
}

void append(std::vector<io::TensorInfo>& to, const std::vector<io::TensorInfo>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

TEST(Components, OfSdxl) {
  const auto tensors = published("sdxl-base");
  const auto components = find_components(tensors);
  EXPECT_THAT(names(components),
              testing::UnorderedElementsAre("diffusion_model=model.diffusion_model.", "vae=first_stage_model.",
                                            "text_encoder.0=conditioner.embedders.0.",
                                            "text_encoder.1=conditioner.embedders.1."));
  size_t count = 0;
  uint64_t bytes = 0, expected = 0;
  for (const Component& c : components) count += c.tensors, bytes += c.bytes;
  for (const auto& t : tensors) expected += t.bytes;
  EXPECT_EQ(count, tensors.size());
  EXPECT_EQ(bytes, expected);
  for (const auto& t : tensors) {
    EXPECT_TRUE(t.name.starts_with(components[component_of(components, t.name)].prefix));
  }
}

TEST(Components, BareFilesAreOnePart) {
  const auto expect = [](const std::vector<io::TensorInfo>& tensors, const char* name) {
    EXPECT_THAT(names(find_components(tensors)), testing::ElementsAre(name));
  };
  expect(published("wan2.2-ti2v-5b"), "diffusion_model=");
  expect(published("t5-xxl"), "text_encoder=");
  expect(model_of({"encoder.conv_in", "decoder.conv_in"}), "vae=");
  expect(model_of({"a.lora_A", "a.lora_B"}), "adapter=");
  expect(model_of({"something.new"}), "diffusion_model=");
  // One wrapper around everything is still one component; detection takes the wrapper off.
  expect(renamed(published("flux1-dev"), "", "transformer."), "diffusion_model=");
  EXPECT_TRUE(find_components({}).empty());
}

TEST(Components, OfAnLtx2Merge) {
  auto tensors = published("ltx-2");
  append(tensors, model_of({"vae.decoder.conv_in", "audio_vae.encoder.conv_in", "vocoder.conv_pre",
                            "text_embedding_projection.aggregate_embed"}));
  EXPECT_THAT(
      names(find_components(tensors)),
      testing::UnorderedElementsAre("diffusion_model=model.diffusion_model.", "vae=vae.", "audio_vae=audio_vae.",
                                    "vocoder=vocoder.", "text_projection=text_embedding_projection."));
}

TEST(Components, OfAnOddMerge) {
  auto tensors = renamed(published("flux1-dev"), "", "transformer.");
  append(tensors, renamed(published("t5-xxl"), "", "text_encoders.t5xxl.transformer."));
  append(tensors, model_of({"vae.encoder.conv_in", "note"}));
  const auto components = find_components(tensors);
  EXPECT_THAT(names(components),
              testing::UnorderedElementsAre("diffusion_model=transformer.", "text_encoders.t5xxl=text_encoders.t5xxl.",
                                            "vae=vae.", "other="));
  EXPECT_EQ(components[component_of(components, "note.weight")].name, "other");
  EXPECT_EQ(components[component_of(components, "transformer.img_in.weight")].name, "diffusion_model");
}

TEST(Components, StrayTensorsBesideAModelAreOther) {
  auto tensors = renamed(published("chroma"), "", "model.diffusion_model.");
  append(tensors, model_of({"transformer_notes"}));
  EXPECT_THAT(names(find_components(tensors)),
              testing::UnorderedElementsAre("diffusion_model=model.diffusion_model.", "other="));
}

TEST(Components, Selection) {
  const std::vector<Component> sdxl = {{"text_encoder.0", "conditioner.embedders.0.", 1, 1},
                                       {"diffusion_model", "model.diffusion_model.", 1, 1}};
  EXPECT_THAT(select_components(sdxl, ""), testing::ElementsAre(1));
  EXPECT_THAT(select_components(sdxl, "text_encoder.0"), testing::ElementsAre(0));
  EXPECT_THAT(select_components(sdxl, "all"), testing::ElementsAre(0, 1));
  const std::vector<Component> single = {{"text_encoder", "", 1, 1}};
  EXPECT_THAT(select_components(single, ""), testing::ElementsAre(0));
  const auto error = [](std::span<const Component> components, const char* wanted) -> std::string {
    try {
      select_components(components, wanted);
    } catch (const Error& e) {
      return std::string(e.name()) + ": " + e.what();
    }
    return "";
  };
  EXPECT_THAT(error(sdxl, "vae"), testing::AllOf(testing::HasSubstr("unknown-component"),
                                                 testing::HasSubstr("text_encoder.0, diffusion_model")));
  const std::vector<Component> two = {{"vae", "vae.", 1, 1}, {"vocoder", "vocoder.", 1, 1}};
  EXPECT_THAT(error(two, ""), testing::HasSubstr("no-default-component"));
}

}  // namespace
}  // namespace mezzotint::convert
