#include "mezzotint/nn/input_scales.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/calibration/input_scale.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::nn {
namespace {

using Find = std::function<std::optional<convert::LayerStatistics>(const std::string& layer, int64_t cols)>;

InputScaleReport set(torch::nn::Module& module, std::string_view rule, const Find& find) {
  const std::optional<double> percentile = convert::parse_input_scale(rule);
  InputScaleReport report;
  visit_modules(module, "", [&](torch::nn::Module& each, const std::string& path) {
    const auto own = each.named_parameters(false);
    const at::Tensor* weight = own.find("weight");
    if (weight == nullptr || path.empty() || !tensor::is_quantized(*weight)) return;
    const std::string layer = path.substr(0, path.size() - 1);
    const tensor::QuantizedTensorImpl& codes = tensor::quantized(*weight);
    const formats::Format& format = *codes.stored()->layout.format;
    if (format.input_scale_divisor == 0 || codes.product()->pre_quant_scale.defined()) return;
    tensor::ProductOptions product = *codes.product();
    product.input_scale.reset();
    if (percentile) {
      if (const auto statistics = find(layer, codes.stored()->layout.cols))
        product.input_scale = convert::input_scale(*statistics, format, *percentile);
      if (!product.input_scale) return report.without.push_back(layer);
      report.set.push_back(layer);
    }
    const at::Tensor fresh = tensor::make_tensor(codes.stored(), weight->scalar_type(), codes.transposed(),
                                                 std::make_shared<const tensor::ProductOptions>(std::move(product)));
    if (!place(each, "weight", fresh))
      throw Error({.name = "cannot-hold", .problem = "the module does not take another weight", .tensor = layer});
  });
  return report;
}

}  // namespace

InputScaleReport set_input_scales(torch::nn::Module& module, const convert::Calibration& calibration,
                                  std::string_view rule, const std::string& prefix) {
  return set(module, rule, [&](const std::string& layer, int64_t cols) -> std::optional<convert::LayerStatistics> {
    const convert::LayerStatistics* found = calibration.find(prefix + layer, cols);
    if (found == nullptr) return std::nullopt;
    return *found;
  });
}

InputScaleReport set_input_scales(torch::nn::Module& module, const CalibrationRecorder& recorder,
                                  std::string_view rule) {
  const std::vector<std::string> used = recorder.layers();
  return set(module, rule, [&](const std::string& layer, int64_t) -> std::optional<convert::LayerStatistics> {
    if (std::find(used.begin(), used.end(), layer) == used.end()) return std::nullopt;
    return recorder.statistics(layer);
  });
}

}  // namespace mezzotint::nn
