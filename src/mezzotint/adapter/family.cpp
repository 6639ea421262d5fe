#include "mezzotint/adapter/family.h"

#include "mezzotint/checkpoint/suffixes.h"

namespace mezzotint::adapter {

int64_t Names::dim(std::string_view layer, size_t axis) const {
  const auto found = shapes_.find(std::string(layer) + ".weight");
  return found == shapes_.end() || axis >= found->second.size() ? 0 : found->second[axis];
}

int64_t Names::blocks(std::string_view stem) const {
  int64_t count = 0;
  while (any(std::string(stem) + std::to_string(count) + ".")) ++count;
  return count;
}

bool Names::any(std::string_view stem) const {
  const auto at = shapes_.lower_bound(stem);
  return at != shapes_.end() && at->first.starts_with(stem);
}

bool Names::has_layer(std::string_view layer) const {
  const std::string name(layer);
  return has(name) || any(name + ".") || has(name + "_weight");
}

void Aliases::add(std::string name, std::string layer, int64_t row0, int64_t rows) {
  if (!names_.has_layer(layer)) return;
  all_.push_back({std::move(name), {std::move(layer), row0, rows, false}});
}

void Aliases::add_slices(std::string_view prefix, std::initializer_list<std::string_view> names,
                         const std::string& layer, int64_t rows) {
  int64_t row0 = 0;
  for (const std::string_view name : names) {
    add(std::string(prefix) + std::string(name), layer, row0, rows);
    row0 += rows;
  }
}

void Aliases::add_swapped(std::string name, std::string layer) {
  if (!names_.has_layer(layer)) return;
  all_.push_back({std::move(name), {std::move(layer), 0, 0, true}});
}

void Aliases::add_pairs(const std::string& theirs, const std::string& ours, Pairs pairs) {
  for (const auto& [from, to] : pairs) add(theirs + std::string(from), ours + std::string(to));
}

void Aliases::add_tree(const std::string& theirs, const std::string& ours) {
  const auto& all = names_.all();
  for (auto at = all.lower_bound(ours); at != all.end() && at->first.starts_with(ours); ++at) {
    if (!at->first.ends_with(checkpoint::kDotWeight)) continue;
    const std::string layer = checkpoint::layer_name(at->first);
    add(theirs + layer.substr(ours.size()), layer);
  }
}

}  // namespace mezzotint::adapter
