#include "mezzotint/convert/smoothing/norms.h"

#include <cmath>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/kernel/cast.h"

namespace mezzotint::convert {
namespace {

using checkpoint::Model;

bool is_plain(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16;
}

class Search {
 public:
  Search(const Plan& plan, const Model& model) : plan_(plan), tensors_(model.source().tensors()) {
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      if (plan.rows[i].action == Action::drop) continue;
      const std::string_view name = tensors_[plan.rows[i].source].name;
      rows_.emplace(name, i);
      const auto [layer, suffix] = checkpoint::split_name(name);
      if (suffix != "weight") continue;
      const auto [parent, last] = checkpoint::split_name(layer);
      if (last.find("norm") != std::string_view::npos) norms_[parent].insert(last);
    }
  }

  std::vector<std::shared_ptr<const NormGroup>> run() const {
    std::vector<std::shared_ptr<const NormGroup>> groups;
    for (const auto& [prefix, preset] : plan_.presets)
      for (const NormReaders& rule : preset->norms)
        for (const auto& [name, row] : rows_) {
          const auto [norm, suffix] = checkpoint::split_name(name);
          const std::string tail = "." + std::string(rule.norm);
          if (suffix != "weight" || !norm.starts_with(prefix) || !norm.ends_with(tail)) continue;
          if (!known_block(*preset, norm)) continue;
          if (auto group = make_group(rule, norm, norm.substr(0, norm.size() - tail.size()))) groups.push_back(group);
        }
    return groups;
  }

 private:
  /// A block with other norms than the preset's is built in another way, whatever its names: what follows a norm there
  /// is not known.
  bool known_block(const Preset& preset, std::string_view norm) const {
    const std::string_view parent = checkpoint::split_name(norm).first;
    std::set<std::string_view> wanted;
    for (const NormReaders& rule : preset.norms) {
      const auto [inner, last] = checkpoint::split_name(rule.norm);
      if (parent.ends_with(inner)) wanted.insert(last);
    }
    return norms_.at(parent) == wanted;
  }

  size_t find(const std::string& tensor) const {
    const auto found = rows_.find(tensor);
    return found == rows_.end() ? Model::npos : found->second;
  }

  bool takes_factors(size_t row, int64_t width) const {
    const io::TensorInfo& info = tensors_[plan_.rows[row].source];
    return plan_.rows[row].action == Action::copy && is_plain(info.dtype) && info.shape == Shape{width};
  }

  std::shared_ptr<const NormGroup> make_group(const NormReaders& rule, std::string_view norm,
                                              std::string_view block) const {
    NormGroup group;
    for (std::string_view rest = rule.readers; !rest.empty();) {
      const size_t end = std::min(rest.find(' '), rest.size());
      const size_t row = find(std::string(block) + "." + std::string(rest.substr(0, end)) + ".weight");
      if (row != Model::npos) group.readers.push_back(row);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (group.readers.empty()) return nullptr;
    const Shape& shape = plan_.rows[group.readers[0]].shape;
    const int64_t width = shape.empty() ? 0 : shape.back();
    for (const std::string_view part : {".weight", ".bias"}) {
      const size_t row = find(std::string(norm) + std::string(part));
      if (row == Model::npos) continue;
      if (!takes_factors(row, width)) return nullptr;
      group.parts.push_back(row);
    }
    return std::make_shared<const NormGroup>(std::move(group));
  }

  const Plan& plan_;
  const std::vector<io::TensorInfo>& tensors_;
  std::map<std::string_view, size_t> rows_;                       // by tensor
  std::map<std::string_view, std::set<std::string_view>> norms_;  // by what they are in
};

}  // namespace

std::vector<std::shared_ptr<const NormGroup>> find_norm_groups(const Plan& plan, const Model& model) {
  return Search(plan, model).run();
}

void make_exact(const Model& model, const Plan& plan, const NormGroup& group, std::vector<float>& factors) {
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
      if (products[j] / factors[j] != values[j]) factors[j] = 1;
  }
}

}  // namespace mezzotint::convert
