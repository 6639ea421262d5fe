#include "mezzotint/nn/bypass/bypass.h"

#include <algorithm>
#include <map>

#include "mezzotint/adapter/key_map.h"
#include "mezzotint/adapter/stack.h"
#include "mezzotint/base/error.h"
#include "mezzotint/nn/bypass/layer_bypass.h"
#include "mezzotint/nn/layer.h"
#include "mezzotint/nn/parameters.h"
#include "mezzotint/tensor/stored_weight.h"

namespace mezzotint::nn {
/// A weight that a module may be given another tensor for.
struct BypassSite {
  torch::nn::Module* module = nullptr;
  std::string key, name;  ///< in its module, and from the root

  at::Tensor tensor() const { return module->named_parameters(false)[key]; }
  /// What keeps its adapters, or null.
  std::shared_ptr<LayerBypass> bypass() const {
    const tensor::StandInImpl* stand_in = tensor::as_stand_in(tensor());
    return stand_in == nullptr ? nullptr : std::dynamic_pointer_cast<LayerBypass>(stand_in->interceptor());
  }
  bool exchange(const at::Tensor& value) const {
    auto* layer = dynamic_cast<Layer*>(module);
    if (layer == nullptr || !layer->exchanges(key))
      return is_product_of_torch(*module) && place_in_torch_module(*module, key, value);
    layer->exchange(key, value);
    return true;
  }
};

namespace {

/// The rows of a weight that an adapter is for, as a shape.
Shape part_shape(const Shape& weight, const LayerAdapter& adapter, const std::string& name) {
  const Shape whole = adapter.bias ? Shape{weight.at(0)} : weight;
  return adapter::Stack(whole).shape_of({name, adapter.row0, adapter.rows, adapter.swap_halves});
}

}  // namespace

struct Bypass::State {
  struct Attached {
    std::shared_ptr<BypassSwitch> control;
    AttachReport report;
    std::vector<const BypassSite*> sites;
    std::vector<at::Tensor> parameters;
  };
  std::map<std::string, BypassSite, std::less<>> sites;
  adapter::Names names;
  std::map<Id, Attached> all;
  Id next = 1;

  Attached& find(Id id) {
    const auto found = all.find(id);
    TORCH_CHECK(found != all.end(), "no adapter ", id, " is attached");
    return found->second;
  }

  const BypassSite* site(const std::string& layer) const {
    for (const char* suffix : {".weight", "_weight", ""})
      if (const auto found = sites.find(layer + suffix); found != sites.end()) return &found->second;
    return nullptr;
  }

  static Attached begin(const AttachOptions& options) {
    Attached attached;
    attached.control = std::make_shared<BypassSwitch>(BypassSwitch{options.strength, true});
    return attached;
  }

  void attach(Attached& attached, const BypassSite& site, const LayerAdapter& adapter, const AttachOptions& options) {
    const at::Tensor weight = site.tensor();
    const Shape shape = part_shape(weight.sizes().vec(), adapter, site.name);
    LayerBypass::Entry entry;
    entry.control = attached.control;
    entry.rows = {adapter.row0, shape.at(0), weight.size(0), adapter.swap_halves};
    entry.float32 = options.float32;
    if (adapter.bias) {
      const auto diff = adapter.factors.find("diff");
      if (diff == adapter.factors.end() || diff->second.numel() != shape.at(0)) {
        throw Error({.name = "adapter-shape",
                     .problem = "a difference of the bias has another size",
                     .tensor = site.name,
                     .found = adapter.algorithm});
      }
      entry.bias = diff->second.flatten() * adapter.factor;
    } else {
      entry.change = make_change(adapter, shape);
      if (adapter.magnitude.defined()) {
        const adapter::DoraFit fit = adapter::dora_axis(adapter.magnitude.sizes().vec(), adapter.peft_magnitude, shape);
        if (!fit.misfit.empty()) throw Error({.name = "adapter-shape", .problem = fit.misfit, .tensor = site.name});
        entry.magnitude = adapter.magnitude;
        entry.axis = fit.axis;
      }
    }
    std::shared_ptr<LayerBypass> bypass = site.bypass();
    if (bypass == nullptr) {
      bypass = std::make_shared<LayerBypass>(weight);
      if (!site.exchange(tensor::make_stand_in(weight, bypass))) {
        throw Error({.name = "no-bypass",
                     .problem = "its module is neither a linear layer or convolution of torch nor a nn::Layer",
                     .tensor = site.name});
      }
    }
    bypass->add(std::move(entry));
    attached.sites.push_back(&site);
    attached.report.attached.push_back(site.name);
    for (const auto& [role, tensor] : adapter.factors) attached.parameters.push_back(tensor);
    if (adapter.magnitude.defined()) attached.parameters.push_back(adapter.magnitude);
  }

  static void take_off(const Attached& attached) {
    for (const BypassSite* site : attached.sites) {
      const std::shared_ptr<LayerBypass> bypass = site->bypass();
      if (bypass != nullptr && !bypass->remove(attached.control.get())) site->exchange(bypass->weight());
    }
  }

  Id keep(Attached attached) {
    if (!attached.sites.empty()) {
      all.emplace(next, std::move(attached));
      return next++;
    }
    const auto& left_out = attached.report.left_out;
    throw Error({.name = "no-bypass",
                 .problem = "nothing of the adapter has a place in the module",
                 .tensor = left_out.empty() ? "" : left_out[0].target,
                 .found = left_out.empty() ? "no patches" : left_out[0].reason});
  }
};

Bypass::Bypass(torch::nn::Module& module) : state_(std::make_unique<State>()) {
  visit_modules(module, "", [&](torch::nn::Module& each, const std::string& path) {
    for (const auto& parameter : each.named_parameters(false)) {
      const std::string name = path + parameter.key();
      state_->names.add(name, tensor::shape_of(parameter.value()));
      if (parameter.value().dim() >= 2) state_->sites.emplace(name, BypassSite{&each, parameter.key(), name});
    }
  });
}

Bypass::~Bypass() {
  detach_all();
}

Bypass::Id Bypass::attach(const adapter::AdapterFile& file, const AttachOptions& options) {
  const adapter::KeyMap map(state_->names);
  State::Attached attached = State::begin(options);
  for (const adapter::Patch& patch : file.patches()) {
    const auto leave_out = [&](std::string reason) {
      attached.report.left_out.push_back({patch.target, std::move(reason)});
    };
    const std::optional<adapter::Target> target = map.find(patch.target);
    const BypassSite* site = target ? state_->site(target->layer) : nullptr;
    if (site == nullptr) {
      leave_out("the module has no linear layer or convolution of this name");
      continue;
    }
    try {
      LayerAdapter adapter = read_adapter(file, patch);
      adapter.row0 = target->row0;
      adapter.rows = target->rows;
      adapter.swap_halves = target->swap_halves;
      state_->attach(attached, *site, adapter, options);
    } catch (const Error& error) {
      if (error.name() != "adapter-shape" && error.name() != "no-bypass") {
        State::take_off(attached);
        throw;
      }
      leave_out(error.info().problem);
    } catch (...) {
      State::take_off(attached);
      throw;
    }
  }
  return state_->keep(std::move(attached));
}

Bypass::Id Bypass::attach(const std::string& layer, const LayerAdapter& adapter, const AttachOptions& options) {
  const BypassSite* site = state_->site(layer);
  if (site == nullptr) {
    throw Error({.name = "no-bypass",
                 .problem = "the module has no linear layer or convolution of this name",
                 .tensor = layer});
  }
  State::Attached attached = State::begin(options);
  state_->attach(attached, *site, adapter, options);
  return state_->keep(std::move(attached));
}

const AttachReport& Bypass::report(Id id) const {
  return state_->find(id).report;
}
std::vector<at::Tensor> Bypass::parameters(Id id) const {
  return state_->find(id).parameters;
}
double Bypass::strength(Id id) const {
  return state_->find(id).control->strength;
}
void Bypass::set_strength(Id id, double strength) {
  state_->find(id).control->strength = strength;
}
bool Bypass::enabled(Id id) const {
  return state_->find(id).control->enabled;
}
void Bypass::enable(Id id, bool on) {
  state_->find(id).control->enabled = on;
}

void Bypass::detach(Id id) {
  State::take_off(state_->find(id));
  state_->all.erase(id);
}

void Bypass::detach_all() {
  for (const auto& [id, attached] : state_->all) State::take_off(attached);
  state_->all.clear();
}

}  // namespace mezzotint::nn
