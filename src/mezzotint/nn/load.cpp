#include "mezzotint/nn/load.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/checkpoint/weight_values.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/rules.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using tensor::StoredWeight;

constexpr std::string_view kWeight = ".weight";

at::Tensor read_tensor(const Model& file, size_t index) {
  const io::TensorInfo& info = file.source().tensors()[index];
  at::Tensor values = at::empty(info.shape, tensor::scalar_type(info.dtype));
  file.source().read(index, 0, values.mutable_data_ptr(), info.bytes);
  return values;
}

StoredWeight read_layer(const Model& file, const checkpoint::Layer& layer) {
  const formats::Layout& layout = layer.layout;
  const formats::Parameters parameters = file.parameters(layer);
  StoredWeight weight{.layout = layout};
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    weight.tensors.push_back(at::empty(layout.tensors[i].shape, tensor::scalar_type(layout.tensors[i].dtype)));
    auto* bytes = static_cast<std::byte*>(weight.tensors[i].mutable_data_ptr());
    if (i > 0) {
      std::copy(parameters.tensors[i].begin(), parameters.tensors[i].end(), bytes);
      continue;
    }
    for (int64_t expert = 0; expert < layout.experts; ++expert)
      file.read_codes(layer, expert * layout.rows, layout.rows, bytes + expert * layout.stored_rows * layout.row_bytes);
  }
  return weight;
}

class Loader {
 public:
  Loader(const Model& file, const LoadOptions& options) : file_(file), options_(options) {
    for (const auto& [pattern, format] : options.overrides) overrides_.emplace_back(convert::Regex(pattern), format);
    if (options.to.empty()) return;
    const convert::Detection found = convert::detect(file.source().tensors(), options.prefix);
    rules_.emplace(convert::RuleOptions{.preset = found.preset, .prefix = found.prefix});
  }

  LoadReport run(Layer& module) {
    visit(module, "");
    for (const io::TensorInfo& info : file_.source().tensors())
      if (info.name.starts_with(options_.prefix) && !used_.contains(info.name)) report_.unexpected.push_back(info.name);
    return std::move(report_);
  }

 private:
  void visit(torch::nn::Module& module, const std::string& path) {
    const auto own = module.named_parameters(false);
    auto* layer = dynamic_cast<Layer*>(&module);
    TORCH_CHECK(own.is_empty() || layer != nullptr, "the module at '", path,
                "' has parameters and is no mezzotint::nn::Layer: its tensors cannot be exchanged");
    for (const auto& parameter : own) {
      const std::string name = path + parameter.key();
      if (auto value = find(name, parameter.value().sizes())) layer->exchange(parameter.key(), std::move(*value));
    }
    for (const auto& child : module.named_children()) visit(*child.value(), path + child.key() + ".");
  }

  std::optional<at::Tensor> find(const std::string& name, at::IntArrayRef shape) {
    const std::string key = options_.prefix + name;
    const size_t index = file_.source().find(key);
    if (index == io::Source::npos) {
      report_.missing.push_back(name);
      return std::nullopt;
    }
    used_.insert(key);
    at::Tensor value = file_.role(index) == checkpoint::Role::codes ? quantized(index) : plain(index, name);
    if (value.sizes() != shape)
      throw Error({.name = "shape-mismatch",
                   .problem = "a tensor of the file does not fit the module",
                   .file = file_.source().files().front().string(),
                   .tensor = key,
                   .expected = to_string(Shape(shape.begin(), shape.end())),
                   .found = to_string(Shape(value.sizes().begin(), value.sizes().end()))});
    const bool codes = tensor::is_quantized(value);
    const uint64_t bytes = codes ? tensor::quantized(value).stored()->bytes() : value.nbytes();
    report_.loaded.push_back({name, codes ? tensor::format_label(value) : c10::toString(value.scalar_type()), bytes});
    report_.bytes += bytes;
    return value;
  }

  /// A layer as it is stored; the tensors beside it are used, too.
  at::Tensor quantized(size_t index) {
    const auto& tensors = file_.source().tensors();
    const checkpoint::Layer& layer = file_.layers()[file_.layer_of(index)];
    if (!layer.consistent)
      throw Error({.name = "broken-layer",
                   .problem = "the tensors of a quantized layer do not fit its marker",
                   .file = file_.source().files().front().string(),
                   .tensor = tensors[index].name,
                   .advice = "`mezzotint verify` says what is wrong, `mezzotint repair` mends what can be."});
    for (size_t i = 0; i < tensors.size(); ++i)
      if (file_.layer_of(i) == file_.layer_of(index)) used_.insert(tensors[i].name);
    tensor::ProductOptions product{.name = layer.name.substr(options_.prefix.size()),
                                   .full_precision_matrix_mult = layer.full_precision_matrix_mult};
    if (layer.input_scale) product.input_scale = read_tensor(file_, *layer.input_scale).to(at::kFloat).item<float>();
    if (layer.smoothed) product.pre_quant_scale = read_tensor(file_, *layer.pre_quant_scale).to(at::kFloat).flatten();
    return tensor::make_tensor(std::make_shared<const StoredWeight>(read_layer(file_, layer)), options_.compute, false,
                               std::make_shared<const tensor::ProductOptions>(std::move(product)));
  }

  /// A tensor in the compute dtype, or quantized now.
  at::Tensor plain(size_t index, const std::string& name) {
    const io::TensorInfo& info = file_.source().tensors()[index];
    const std::string to = facts(info.dtype).is_float ? wanted_format(info, name) : "";
    const at::Tensor values = read_tensor(file_, index);
    if (to.empty()) return facts(info.dtype).is_float ? values.to(options_.compute) : values;
    tensor::ProductOptions product{.name = name.substr(0, name.size() - kWeight.size())};
    return tensor::make_tensor(
        std::make_shared<const StoredWeight>(tensor::quantize(values, to, {.effort = options_.effort})),
        options_.compute, false, std::make_shared<const tensor::ProductOptions>(std::move(product)));
  }

  std::string wanted_format(const io::TensorInfo& info, const std::string& name) const {
    if (!name.ends_with(kWeight) || info.shape.size() < 2) return "";
    const std::string layer = name.substr(0, name.size() - kWeight.size());
    for (const auto& [pattern, format] : overrides_)
      if (pattern.fullmatch(layer)) return format;
    if (!rules_ || !rules_->decide(info.name, info.shape, true).quantize) return "";
    const formats::Selection selection = formats::select_format(options_.to);
    const bool fits = selection.format->describe({.shape = info.shape}, selection.options).layout.has_value();
    return fits ? options_.to : "";
  }

  const Model& file_;
  const LoadOptions& options_;
  std::vector<std::pair<convert::Regex, std::string>> overrides_;
  std::optional<convert::LayerRules> rules_;
  std::set<std::string> used_;
  LoadReport report_;
};

}  // namespace

LoadReport load(Layer& module, const Model& file, const LoadOptions& options) {
  return Loader(file, options).run(module);
}

}  // namespace mezzotint::nn
