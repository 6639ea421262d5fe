#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/int8_quip/decode.h"
#include "mezzotint/formats/int8_quip/recognise.h"

namespace mezzotint::formats {
namespace int8_quip {
namespace {

Description describe(const LayerFacts& facts, const Options&) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  return {std::nullopt, "it is only read: no loader that we know undoes the transform"};
}

void marker(const Layout&, nlohmann::ordered_json& object) {
  object["format"] = "int8_tensorwise";  // the dialect's own label
}

void verify_sizes(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  for (const auto& [suffix, size] : {std::pair{kSizeOut, layout.stored_rows}, std::pair{kSizeIn, layout.row_bytes}}) {
    const size_t index = index_of(layout, suffix);
    if (index == 0) continue;
    int32_t stored = 0;
    std::memcpy(&stored, parameters.tensors[index].data(), sizeof stored);
    if (stored != size)
      problems.push_back(std::string(suffix) + " is " + std::to_string(stored) + ", but the codes have " +
                         std::to_string(size) + ".");
  }
}

void verify(const Layout& layout, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
  verify_sizes(layout, parameters, problems);
  for (const std::string_view suffix : {kSignRow, kSignCol})
    if (const size_t index = index_of(layout, suffix); index != 0)
      for (size_t i = 0; i < float_count(parameters, index); ++i)
        if (std::abs(floats(parameters, index)[i]) != 1.0f) {
          problems.push_back(std::string(suffix) + " holds values other than 1 and -1.");
          break;
        }
  if (const size_t smooth = index_of(layout, kSmooth); smooth != 0)
    verify_positive(parameters, smooth, kSmooth, problems);
}

}  // namespace
}  // namespace int8_quip

extern const Format format_int8_quip;
const Format format_int8_quip{
    .name = "int8_quip",
    .summary = "8-bit integers of a weight transformed on both sides (read only)",
    .support = {.comfyui = false,
                .loaders = "nodes of the QuIP fork of convert_to_quant",
                .fast_on = "nothing known",
                .nearest = "int8_tensorwise"},
    .writable = false,
    .describe = int8_quip::describe,
    .encode = nullptr,
    .decode = int8_quip::decode,
    .error_bound = nullptr,
    .marker = int8_quip::marker,
    .recognise = int8_quip::recognise,
    .verify = int8_quip::verify,
};

}  // namespace mezzotint::formats
