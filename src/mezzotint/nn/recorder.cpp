#include "mezzotint/nn/recorder.h"

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <exception>
#include <map>
#include <unordered_map>

#include "mezzotint/base/error.h"
#include "mezzotint/checkpoint/suffixes.h"
#include "mezzotint/convert/calibration/write.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/nn/input_statistics.h"
#include "mezzotint/tensor/quantized_tensor.h"
#include "mezzotint/tensor/stand_in.h"

namespace mezzotint::nn {
namespace {

using checkpoint::kDotWeight;

/// The operations that are products with a weight, and where their operands stand.
struct Product {
  std::string_view operation;
  size_t input, weight;
  bool transposed;  // the weight is given as W'
};
constexpr Product kProducts[] = {{"aten::linear", 0, 1, false}, {"aten::addmm", 1, 2, true},
                                 {"aten::matmul", 0, 1, true},  {"aten::mm", 0, 1, true},
                                 {"aten::bmm", 0, 1, true},     {"aten::baddbmm", 1, 2, true}};

/// What a weight and its views have in common.
const void* identity(const at::Tensor& weight) {
  if (!weight.defined() || weight.is_meta()) return nullptr;
  // A layer with adapters; what they make of its input is not recorded.
  if (const tensor::StandInImpl* stand_in = tensor::as_stand_in(weight)) return identity(stand_in->behind());
  if (tensor::is_quantized(weight)) return tensor::quantized(weight).stored().get();
  return weight.has_storage() ? weight.const_data_ptr() : nullptr;
}

bool is_transposed(const at::Tensor& weight) {
  if (tensor::is_quantized(weight)) return tensor::quantized(weight).transposed();
  return weight.stride(-2) == 1 && weight.stride(-1) >= weight.size(-2);
}

}  // namespace

struct CalibrationRecorder::State {
  struct Layer {
    std::string name;
    at::Tensor weight;  // kept alive: its address is what tells it
    std::unique_ptr<InputStatistics> statistics;
  };
  struct Context : at::ObserverContext {};
  /// The recorders of a thread, and the one callback that serves them.
  struct Thread {
    std::vector<State*> recorders;
    at::CallbackHandle callback = 0;
    bool inside = false;  // of a product that was seen: what it calls is part of it
  };

  bool gram = false;
  std::map<std::string, Layer, std::less<>> layers;
  std::unordered_map<const void*, Layer*> by_weight;
  std::exception_ptr failure;

  static Thread& thread() {
    thread_local Thread thread;
    return thread;
  }

  void begin() {
    Thread& here = thread();
    here.recorders.push_back(this);
    if (here.recorders.size() > 1) return;
    here.inside = false;
    here.callback = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&enter, &leave).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }

  void end() {
    Thread& here = thread();
    if (std::erase(here.recorders, this) == 0 || !here.recorders.empty()) return;
    at::removeCallback(here.callback);
  }

  // Called by torch for every operation of the thread. What is thrown here would be logged and lost.
  static std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& call) {
    Thread& here = thread();
    if (here.inside) return nullptr;
    const std::string_view name = call.name();
    const auto* product = std::find_if(std::begin(kProducts), std::end(kProducts),
                                       [&](const Product& each) { return each.operation == name; });
    if (product == std::end(kProducts)) return nullptr;
    const auto inputs = call.inputs();
    if (inputs.size() <= product->weight || !inputs[product->input].isTensor() || !inputs[product->weight].isTensor())
      return nullptr;
    here.inside = true;
    const at::NoGradGuard no_gradients;
    const at::DisableRecordFunctionGuard unseen;
    const c10::impl::ExcludeDispatchKeyGuard plain(c10::autocast_dispatch_keyset);
    for (State* recorder : here.recorders) {
      if (recorder->failure) continue;
      try {
        recorder->use(inputs[product->input].toTensor(), inputs[product->weight].toTensor(), product->transposed);
      } catch (...) {
        recorder->failure = std::current_exception();
      }
    }
    return std::make_unique<Context>();
  }

  static void leave(const at::RecordFunction&, at::ObserverContext* context) {
    if (context != nullptr) thread().inside = false;
  }

  void use(const at::Tensor& x, const at::Tensor& weight, bool transposed) {
    const auto found = by_weight.find(identity(weight));
    if (found == by_weight.end() || !x.defined() || !at::isFloatingType(x.scalar_type()) || x.numel() == 0) return;
    Layer& layer = *found->second;
    const int64_t rows = layer.weight.size(-2), cols = layer.weight.size(-1);
    // g W, the gradient of an input, is not what is looked for.
    const bool forward = transposed ? weight.size(-2) == cols && weight.size(-1) == rows && is_transposed(weight)
                                    : weight.size(-2) == rows && weight.size(-1) == cols;
    if (!forward || x.size(-1) != cols || tensor::is_quantized(x)) return;
    if (layer.statistics == nullptr) layer.statistics = std::make_unique<InputStatistics>(cols, gram);
    layer.statistics->add(x);
  }

  static bool was_used(const Layer& layer) { return layer.statistics != nullptr && layer.statistics->tokens() > 0; }

  void check() const {
    if (failure) std::rethrow_exception(failure);
  }
};

CalibrationRecorder::CalibrationRecorder(const torch::nn::Module& module, const RecordOptions& options)
    : state_(std::make_unique<State>()) {
  state_->gram = options.gram;
  std::vector<convert::Regex> wanted(options.layers.begin(), options.layers.end());
  for (const auto& parameter : module.named_parameters()) {
    const std::string& name = parameter.key();
    const at::Tensor& weight = parameter.value();
    if (!name.ends_with(kDotWeight) || name.size() == kDotWeight.size() || weight.dim() < 2 || weight.dim() > 3)
      continue;
    std::string layer = name.substr(0, name.size() - kDotWeight.size());
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(),
                                        [&](const convert::Regex& pattern) { return pattern.fullmatch(layer); }))
      continue;
    State::Layer& entry = state_->layers.emplace(layer, State::Layer{layer, weight, nullptr}).first->second;
    if (const void* key = identity(weight)) state_->by_weight[key] = &entry;
  }
  state_->begin();
}

CalibrationRecorder::~CalibrationRecorder() {
  stop();
}

void CalibrationRecorder::stop() {
  state_->end();
}

std::vector<std::string> CalibrationRecorder::layers() const {
  std::vector<std::string> names;
  for (const auto& [name, layer] : state_->layers)
    if (State::was_used(layer)) names.push_back(name);
  return names;
}

std::vector<std::string> CalibrationRecorder::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, layer] : state_->layers)
    if (!State::was_used(layer)) names.push_back(name);
  return names;
}

uint64_t CalibrationRecorder::skipped() const {
  uint64_t sum = 0;
  for (const auto& [name, layer] : state_->layers)
    if (layer.statistics != nullptr) sum += layer.statistics->skipped();
  return sum;
}

convert::LayerStatistics CalibrationRecorder::statistics(std::string_view layer) const {
  state_->check();
  const auto found = state_->layers.find(layer);
  if (found == state_->layers.end() || !State::was_used(found->second))
    throw Error({.name = "nothing-recorded",
                 .problem = "the layer was not used while recording",
                 .tensor = std::string(layer)});
  return found->second.statistics->result();
}

void CalibrationRecorder::save(const std::filesystem::path& path, const std::string& prefix, bool overwrite) const {
  state_->check();
  std::vector<convert::LayerRecording> recordings;
  for (const auto& [name, layer] : state_->layers) {
    if (!State::was_used(layer)) continue;
    recordings.push_back(
        {prefix + name, layer.statistics->result(),
         [&statistics = *layer.statistics](int64_t row, float* out) { statistics.gram_row(row, out); }});
  }
  convert::write_calibration(path, recordings, overwrite);
}

}  // namespace mezzotint::nn
