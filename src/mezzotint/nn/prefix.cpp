#include "mezzotint/nn/prefix.h"

#include <algorithm>
#include <map>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/detect.h"

namespace mezzotint::nn {

std::string find_prefix(std::span<const io::TensorInfo> tensors, const std::set<std::string, std::less<>>& names) {
  std::map<std::string_view, size_t> hits;
  for (const io::TensorInfo& info : tensors) {
    const std::string_view name = info.name;
    for (size_t at = 0;;) {
      if (names.contains(name.substr(at))) ++hits[name.substr(0, at)];
      const size_t dot = name.find('.', at);
      if (dot == std::string_view::npos) break;
      at = dot + 1;
    }
  }
  size_t most = 0;
  for (const auto& [prefix, count] : hits) most = std::max(most, count);
  std::erase_if(hits, [&](const auto& entry) { return entry.second < most; });
  if (hits.empty()) return "";
  if (hits.size() == 1) return std::string(hits.begin()->first);
  std::string detected = convert::detect(tensors).prefix;
  if (hits.contains(detected)) return detected;
  std::string found;
  for (const auto& [prefix, count] : hits) found += (found.empty() ? "'" : ", '") + std::string(prefix) + "'";
  throw Error({.name = "ambiguous-prefix",
               .problem = "several parts of the file have the module's names",
               .found = found,
               .advice = "Say which with LoadOptions::prefix."});
}

}  // namespace mezzotint::nn
