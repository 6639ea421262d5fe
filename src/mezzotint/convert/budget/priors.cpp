#include "mezzotint/convert/budget/priors.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "mezzotint/convert/regex.h"

namespace mezzotint::convert {
namespace {

constexpr RolePrior kRoles[] = {
    {R"((?i).*(?:attn|attention)\w*[._](?:to_out(?:\.0)?|to_add_out|out_proj|o_proj|c_proj|out|proj|o|wo))", 2,
     "output of attention"},
    {R"((?:.*\.)?(?:\w*(?:ffn|mlp|ff|net)\.2|(?:mlp\.)?c_proj|fc2|down_proj|w2|wo|linear2|proj_mlp_out|proj_out))", 2,
     "output of the feed-forward part"},
};

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// Where the first segment that is a number begins and ends.
std::optional<std::pair<size_t, size_t>> find_index(std::string_view layer) {
  for (size_t begin = 0; begin < layer.size();) {
    const size_t end = std::min(layer.find('.', begin), layer.size());
    if (begin > 0 && end < layer.size() && is_number(layer.substr(begin, end - begin))) return std::pair{begin, end};
    begin = end + 1;
  }
  return std::nullopt;
}

uint64_t number(std::string_view digits) {
  uint64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

}  // namespace

std::span<const RolePrior> role_priors() {
  return kRoles;
}

std::string_view block_of(std::string_view layer) {
  const auto index = find_index(layer);
  return index ? layer.substr(0, index->second) : layer;
}

std::vector<double> priors_of(std::span<const std::string> layers) {
  struct Ends {
    uint64_t first, last;
  };
  std::map<std::string_view, Ends> stacks;
  for (const std::string& layer : layers)
    if (const auto index = find_index(layer)) {
      const std::string_view name = layer;
      const uint64_t block = number(name.substr(index->first, index->second - index->first));
      const auto [at, fresh] = stacks.try_emplace(name.substr(0, index->first), Ends{block, block});
      if (!fresh) at->second = {std::min(at->second.first, block), std::max(at->second.last, block)};
    }

  std::vector<Regex> roles;
  for (const RolePrior& role : kRoles) roles.emplace_back(role.pattern);
  std::vector<double> priors;
  for (const std::string& layer : layers) {
    double prior = 1;
    for (size_t r = 0; r < roles.size() && prior == 1; ++r)
      if (roles[r].fullmatch(layer)) prior = kRoles[r].factor;
    if (const auto index = find_index(layer)) {
      const std::string_view name = layer;
      const uint64_t block = number(name.substr(index->first, index->second - index->first));
      const Ends& ends = stacks.at(name.substr(0, index->first));
      if (block == ends.first || block == ends.last) prior *= kEndBlockPrior;
    }
    priors.push_back(prior);
  }
  return priors;
}

}  // namespace mezzotint::convert
