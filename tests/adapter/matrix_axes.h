#pragma once
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "mezzotint/adapter/algorithm.h"
#include "mezzotint/formats/format.h"

/// Rows and columns of docs/adapters.md, by what the program has.
namespace mezzotint::test {

/// Every format, and every alias that stands for a setting of its own.
inline std::vector<std::string> matrix_formats() {
  std::vector<std::string> names;
  for (const formats::Format* format : formats::all_formats()) {
    std::set<std::string> seen;
    const auto add = [&](std::string_view name) {
      if (seen.insert(formats::select_format(name).label()).second) names.emplace_back(name);
    };
    add(format->name);
    for (const formats::Alias& alias : format->aliases) add(alias.name);
  }
  return names;
}

inline std::vector<std::string> matrix_algorithms() {
  std::vector<std::string> names = {"dora"};
  for (const adapter::Algorithm* algorithm : adapter::all_algorithms()) names.emplace_back(algorithm->name);
  return names;
}

inline const std::vector<std::string>& matrix_kinds() {
  static const std::vector<std::string> kinds = {"linear", "conv1d", "conv2d", "conv3d"};
  return kinds;
}

/// A weight whose rows have 256 elements, which every format takes where it takes the kind.
inline Shape matrix_shape(const std::string& kind) {
  if (kind == "conv1d") return {128, 64, 4};
  if (kind == "conv2d") return {128, 64, 2, 2};
  return kind == "conv3d" ? Shape{128, 32, 2, 2, 2} : Shape{128, 256};
}

}  // namespace mezzotint::test
