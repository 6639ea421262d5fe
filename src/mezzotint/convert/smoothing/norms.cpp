#include "mezzotint/convert/smoothing/norms.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::convert {
namespace {

class Search {
 public:
  Search(std::span<const io::TensorInfo> tensors, std::string_view prefix, const Preset& preset) : preset_(preset) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const std::string_view name = tensors[i].name;
      if (!name.starts_with(prefix)) continue;
      tensors_.emplace(name, i);
      const auto [layer, suffix] = checkpoint::split_name(name);
      if (suffix != "weight") continue;
      const auto [parent, last] = checkpoint::split_name(layer);
      if (last.find("norm") != std::string_view::npos) norms_[parent].insert(last);
    }
  }

  std::vector<Norm> run() const {
    std::vector<Norm> found;
    for (const NormReaders& rule : preset_.norms)
      for (const auto& [name, tensor] : tensors_) {
        const auto [norm, suffix] = checkpoint::split_name(name);
        const std::string tail = "." + std::string(rule.norm);
        if (suffix != "weight" || !norm.ends_with(tail) || !known_block(norm)) continue;
        Norm group = group_of(rule, norm, norm.substr(0, norm.size() - tail.size()));
        if (!group.readers.empty()) found.push_back(std::move(group));
      }
    return found;
  }

 private:
  /// A block with other norms than the preset's is built in another way, whatever its names: what follows a norm there
  /// is not known.
  bool known_block(std::string_view norm) const {
    const std::string_view parent = checkpoint::split_name(norm).first;
    std::set<std::string_view> wanted;
    for (const NormReaders& rule : preset_.norms) {
      const auto [inner, last] = checkpoint::split_name(rule.norm);
      if (parent.ends_with(inner)) wanted.insert(last);
    }
    return norms_.at(parent) == wanted;
  }

  Norm group_of(const NormReaders& rule, std::string_view norm, std::string_view block) const {
    Norm group;
    const auto add = [&](std::vector<size_t>& to, const std::string& tensor) {
      if (const auto found = tensors_.find(tensor); found != tensors_.end()) to.push_back(found->second);
    };
    for (const std::string_view part : {".weight", ".bias"}) add(group.parts, std::string(norm) + std::string(part));
    for (std::string_view rest = rule.readers; !rest.empty();) {
      const size_t end = std::min(rest.find(' '), rest.size());
      add(group.readers, std::string(block) + "." + std::string(rest.substr(0, end)) + ".weight");
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return group;
  }

  const Preset& preset_;
  std::map<std::string_view, size_t, std::less<>> tensors_;
  std::map<std::string_view, std::set<std::string_view>> norms_;  // by what they are in
};

}  // namespace

std::vector<Norm> find_norms(std::span<const io::TensorInfo> tensors, std::string_view prefix, const Preset& preset) {
  return Search(tensors, prefix, preset).run();
}

void make_exact(const checkpoint::Model& model, const Plan& plan, const NormGroup& group, std::vector<float>& factors) {
  const auto count = static_cast<int64_t>(factors.size());
  for (float& factor : factors) factor = std::exp2(std::round(std::log2(factor)));
  for (const size_t part : group.parts) {
    const io::TensorInfo& info = model.source().tensors()[plan.rows[part].source];
    std::vector<std::byte> bytes(info.bytes);
    model.source().read(plan.rows[part].source, 0, bytes.data(), bytes.size());
    std::vector<float> values(factors.size()), products(factors.size());
    kernel::cast({bytes.data(), info.dtype, 1, count, count}, DType::f32, values.data(), count);
    for (size_t j = 0; j < factors.size(); ++j) products[j] = values[j] * factors[j];
    kernel::cast({products.data(), DType::f32, 1, count, count}, info.dtype, bytes.data(), count);
    kernel::cast({bytes.data(), info.dtype, 1, count, count}, DType::f32, products.data(), count);
    for (size_t j = 0; j < factors.size(); ++j)
      if (products[j] / factors[j] != values[j] || (part == group.parts[0] && values[j] == 0)) factors[j] = 1;
  }
}

}  // namespace mezzotint::convert
