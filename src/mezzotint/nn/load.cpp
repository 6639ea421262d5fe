#include "mezzotint/nn/load.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/convert/rules.h"
#include "mezzotint/nn/file_tensors.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/nn/prefix.h"
#include "mezzotint/tensor/files.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::nn {
namespace {

using checkpoint::Model;
using tensor::StoredWeight;

using checkpoint::kDotWeight;

/// What a layer multiplies its inputs with, smoothing included.
at::Tensor weight_values(const at::Tensor& weight) {
  const at::Tensor& factors = tensor::quantized(weight).product()->pre_quant_scale;
  const at::Tensor values = tensor::dequantized(weight);
  return factors.defined() ? at::mul(values.to(at::kFloat), factors).to(weight.scalar_type()) : values;
}

class Loader {
 public:
  Loader(torch::nn::Module& module, const Model& file, const LoadOptions& options)
      : module_(module), file_(file), options_(options), prefix_(options.prefix.value_or("")) {
    for (const auto& [pattern, format] : options.overrides) overrides_.emplace_back(convert::Regex(pattern), format);
    if (!options.prefix) prefix_ = find_prefix(file.source().tensors(), names());
    if (options.to.empty()) return;
    const convert::Detection found = convert::detect(file.source().tensors(), prefix_);
    rules_.emplace(convert::RuleOptions{.preset = found.preset, .prefix = found.prefix});
  }

  LoadReport run() {
    visit_modules(module_, "", [&](torch::nn::Module& module, const std::string& path) {
      for (const auto& parameter : module.named_parameters(false))
        load(module, path, parameter.key(), parameter.value(), true);
      for (const auto& buffer : module.named_buffers(false)) load(module, path, buffer.key(), buffer.value(), false);
    });
    for (const io::TensorInfo& info : file_.source().tensors())
      if (info.name.starts_with(prefix_) && !used_.contains(info.name)) report_.unexpected.push_back(info.name);
    report_.prefix = prefix_;
    return std::move(report_);
  }

 private:
  std::set<std::string, std::less<>> names() const {
    std::set<std::string, std::less<>> names;
    for (const auto& parameter : module_.named_parameters()) names.insert(parameter.key());
    return names;
  }

  void load(torch::nn::Module& module, const std::string& path, const std::string& key, const at::Tensor& old,
            bool required) {
    const std::string name = path + key;
    const size_t index = file_.source().find(prefix_ + name);
    if (index == io::Source::npos) {
      if (required) report_.missing.push_back(name);
      return;
    }
    used_.insert(prefix_ + name);
    at::Tensor value =
        file_.role(index) == checkpoint::Role::codes ? quantized(index, tensor::shape_of(old)) : plain(index, name);
    if (value.sizes() != old.sizes())
      fail(index, "shape-mismatch", "a tensor of the file does not fit the module", to_string(tensor::shape_of(old)),
           to_string(tensor::shape_of(value)));
    if (!place(module, key, value)) {
      if (!options_.dequantize || !tensor::is_quantized(value))
        fail(index, "cannot-hold", "the module cannot take this tensor in the place of its own",
             "a mezzotint::nn::Layer or a layer of torch::nn",
             tensor::is_quantized(value)
                 ? module.name() + ", which holds its weight behind handles that cannot be codes"
                 : module.name() + ", whose parameter is on the meta device",
             "Derive it from mezzotint::nn::Layer, or set LoadOptions::dequantize.");
      value = weight_values(value);
      if (!place(module, key, value))
        fail(index, "cannot-hold", "the module cannot take this tensor in the place of its own", "", module.name());
    }
    const bool codes = tensor::is_quantized(value);
    const uint64_t bytes = codes ? tensor::quantized(value).stored()->bytes() : value.nbytes();
    report_.loaded.push_back({name, codes ? tensor::format_label(value) : c10::toString(value.scalar_type()), bytes});
    report_.bytes += bytes;
  }

  [[noreturn]] void fail(size_t index, std::string_view error, std::string problem, std::string expected,
                         std::string found, std::string advice = "") const {
    const io::TensorInfo& info = file_.source().tensors()[index];
    throw Error({.name = error,
                 .problem = std::move(problem),
                 .file = file_.source().files()[info.file].string(),
                 .tensor = info.name,
                 .expected = std::move(expected),
                 .found = std::move(found),
                 .advice = std::move(advice)});
  }

  /// A layer as it is stored; the tensors beside it are used, too.
  at::Tensor quantized(size_t index, const Shape& shape) {
    const auto& tensors = file_.source().tensors();
    const checkpoint::Layer& layer = file_.layers()[file_.layer_of(index)];
    if (!layer.consistent)
      fail(index, "broken-layer", "the tensors of a quantized layer do not fit its marker", "", "",
           "`mezzotint verify` says what is wrong, `mezzotint repair` mends what can be.");
    for (size_t i = 0; i < tensors.size(); ++i)
      if (file_.layer_of(i) == file_.layer_of(index)) used_.insert(tensors[i].name);
    const tensor::ProductOptions product{.name = layer.name.substr(prefix_.size()),
                                         .input_scale = read_input_scale(file_, layer),
                                         .pre_quant_scale = read_pre_quant_scale(file_, layer),
                                         .full_precision_matrix_mult = layer.full_precision_matrix_mult,
                                         .unscaled_inputs = options_.unscaled_inputs};
    StoredWeight weight = read_layer(file_, layer, options_.mmap);
    // The matrix of a convolution.
    if (shape.size() > 2 &&
        weight.layout.shape == Shape{shape[0], c10::multiply_integers(shape.begin() + 1, shape.end())})
      weight.convolution = shape;
    return tensor::make_tensor(std::make_shared<const StoredWeight>(std::move(weight)), options_.compute, false,
                               std::make_shared<const tensor::ProductOptions>(product));
  }

  /// A tensor in the compute dtype, or quantized now.
  at::Tensor plain(size_t index, const std::string& name) {
    const io::TensorInfo& info = file_.source().tensors()[index];
    const std::string to = facts(info.dtype).is_float ? wanted_format(info, name) : "";
    const bool as_stored = !facts(info.dtype).is_float || tensor::scalar_type(info.dtype) == options_.compute;
    if (to.empty() && as_stored) return tensor::read_tensor(file_.source(), index, options_.mmap);
    const at::Tensor values = staged(index);
    if (to.empty()) return values.to(options_.compute);
    const tensor::ProductOptions product{.name = name.substr(0, name.size() - kDotWeight.size()),
                                         .unscaled_inputs = options_.unscaled_inputs};
    return tensor::make_tensor(
        std::make_shared<const StoredWeight>(tensor::quantize(values, to, {.effort = options_.effort})),
        options_.compute, false, std::make_shared<const tensor::ProductOptions>(product));
  }

  /// A tensor that is only read to make another one. All share one buffer: the allocator keeps holes between what
  /// stays, and a model's worth of them costs gigabytes.
  at::Tensor staged(size_t index) {
    const io::TensorInfo& info = file_.source().tensors()[index];
    if (!staging_.defined()) {
      uint64_t most = 0;
      for (const io::TensorInfo& other : file_.source().tensors())
        if (other.name.starts_with(prefix_)) most = std::max(most, other.bytes);
      staging_ = at::empty({static_cast<int64_t>(most)}, at::TensorOptions(at::kByte));
    }
    file_.source().read(index, 0, staging_.mutable_data_ptr(), info.bytes);
    return at::from_blob(staging_.mutable_data_ptr(), info.shape, tensor::scalar_type(info.dtype));
  }

  std::string wanted_format(const io::TensorInfo& info, const std::string& name) const {
    if (!name.ends_with(kDotWeight) || info.shape.size() < 2) return "";
    const std::string layer = name.substr(0, name.size() - kDotWeight.size());
    for (const auto& [pattern, format] : overrides_)
      if (pattern.fullmatch(layer)) return format;
    if (!rules_ || !rules_->decide(info.name, info.shape, true).quantize) return "";
    const formats::Selection selection = formats::select_format(options_.to);
    const bool fits = selection.format->describe({.shape = info.shape}, selection.options).layout.has_value();
    return fits ? options_.to : "";
  }

  torch::nn::Module& module_;
  const Model& file_;
  const LoadOptions& options_;
  std::string prefix_;
  std::vector<std::pair<convert::Regex, std::string>> overrides_;
  std::optional<convert::LayerRules> rules_;
  std::set<std::string> used_;
  at::Tensor staging_;
  LoadReport report_;
};

}  // namespace

void release(torch::nn::Module& module) {
  visit_modules(module, "", [](torch::nn::Module& each, const std::string&) {
    for (const auto& parameter : each.named_parameters(false))
      place_in_torch_module(each, parameter.key(),
                            at::empty(parameter.value().sizes(), parameter.value().options().device(at::kMeta)));
  });
}

LoadReport load(torch::nn::Module& module, const Model& file, const LoadOptions& options) {
  return Loader(module, file, options).run();
}

}  // namespace mezzotint::nn
