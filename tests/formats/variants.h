#pragma once
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "mezzotint/formats/driver.h"
#include "support/awkward.h"

/// What the conformance tests run over: every format, in every setting of its options that a table can think of. No
/// test here knows a format by name.
namespace mezzotint::formats {

/// Of all combinations that some shared shape can be stored in, enough to show every value of every option beside every
/// value of every other. Comes to all of them where there are one or two options.
inline std::vector<Options> every_pair(const Format& format, const std::vector<Options>& combinations) {
  std::vector<Options> chosen;
  std::set<std::array<std::string, 4>> seen;
  for (const Options& options : combinations) {
    const auto& shapes = test::awkward_shapes();
    if (std::none_of(shapes.begin(), shapes.end(), [&](const Shape& shape) {
          return format.describe({shape, LayerKind::linear}, options).layout.has_value();
        }))
      continue;
    bool news = options.values().empty();
    for (const auto& [a, value_of_a] : options.values())
      for (const auto& [b, value_of_b] : options.values()) news |= seen.insert({a, value_of_a, b, value_of_b}).second;
    if (news) chosen.push_back(options);
  }
  return chosen;
}

/// The default, every choice, both flags; of integers the default, the smallest, 7 and 64 where allowed. Combined with
/// those of every other option, at least in pairs.
inline std::vector<Options> option_variants(const Format& format) {
  std::vector<Options> variants = {complete_options(format, {})};
  for (const OptionSpec& spec : format.options) {
    std::vector<std::string> values = {std::string(spec.default_value)};
    const auto add = [&](const std::string& value) {
      if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
    };
    if (spec.type == OptionSpec::Type::flag) {
      add("true");
      add("false");
    } else if (spec.type == OptionSpec::Type::integer) {
      const std::string_view range = spec.choices;
      add(std::string(range.substr(0, range.find(".."))));
      for (const char* value : {"7", "64"}) {
        Options probe;
        probe.set(spec.name, value);
        try {
          complete_options(format, probe);
          add(value);
        } catch (const std::exception&) {
        }
      }
    } else {
      std::string_view rest = spec.choices;
      for (size_t bar = 0; bar != std::string_view::npos; rest = rest.substr(bar + 1)) {
        bar = rest.find('|');
        add(std::string(rest.substr(0, bar)));
        if (bar == std::string_view::npos) break;
      }
    }
    std::vector<Options> grown;
    for (const Options& variant : variants)
      for (const std::string& value : values) {
        grown.push_back(variant);
        grown.back().set(spec.name, value);
      }
    variants = grown;
  }
  return every_pair(format, variants);
}

/// Layouts of the format over the shared shapes, and a bank of experts. Options that come to the same on a shape give
/// one layout.
inline std::vector<Layout> layouts(const Format& format) {
  std::vector<Layout> found;
  const auto add = [&](const Description& description) {
    if (!description.layout) return;
    for (const Layout& other : found)
      if (other.shape == description.layout->shape && other.options == description.layout->options) return;
    found.push_back(*description.layout);
  };
  for (const Options& options : option_variants(format)) {
    for (const Shape& shape : test::awkward_shapes()) add(format.describe({shape, LayerKind::linear}, options));
    for (const Shape& shape : {Shape{3, 64, 128}, Shape{2, 1, 5}})
      add(format.describe({shape, LayerKind::expert_bank}, options));
  }
  return found;
}

inline std::string tell(const Layout& layout) {
  return Selection{layout.format, layout.options}.label() + " " + to_string(layout.shape);
}

inline Tile whole_tile(const Layout& layout, const test::SourceBytes& source) {
  return {source.bytes.data(), source.dtype, 0, layout.total_rows(), 0, layout.cols, layout.cols};
}

/// The marker a file would hold, as JSON; null for plain dtypes.
inline nlohmann::json marker_of(const Layout& layout) {
  if (!layout.format->quantized) return nullptr;
  nlohmann::ordered_json object;
  object["format"] = layout.format->name;
  if (layout.format->marker) layout.format->marker(layout, object);
  return nlohmann::json::parse(object.dump());
}

/// The layer as a file stores it. `marker` must outlive the result.
inline StoredLayer stored_layer(const Layout& layout, const nlohmann::json& marker) {
  StoredLayer layer;
  if (!marker.is_null()) {
    layer.label = marker["format"].get_ref<const std::string&>();
    layer.marker = &marker;
  }
  for (const StoredTensor& tensor : layout.tensors)
    layer.tensors.push_back({tensor.suffix, tensor.dtype, tensor.shape});
  return layer;
}

}  // namespace mezzotint::formats
