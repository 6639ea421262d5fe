#pragma once
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mezzotint/adapter/file.h"
#include "mezzotint/nn/bypass/layer_adapter.h"

/// Adapters beside the layers of a module, while its weights stay what they are:
///
///   Bypass bypass(model);
///   const auto id = bypass.attach(adapter::AdapterFile::open("style.safetensors"), {.strength = 0.8});
///   bypass.set_strength(id, 0.5);  // from the next forward on; costs nothing
///   bypass.enable(id, false);
///   bypass.detach(id);             // in any order
///
/// A weight with adapters is exchanged for a tensor that stands for it (tensor/stand_in.h); linear and conv1d to conv3d
/// with it compute g(f(x + e(x)) + h(x)) + bias: what the layer would give if they had been merged, in the order of
/// attaching, whatever the weight is stored as. Everything else sees the weight itself, gradients reach it if it wants
/// them, and detaching the last adapter puts the very same tensor back. Several threads may run the module, but not
/// while adapters are attached, switched or detached.
///
/// Low-rank adapters that follow one another are one pair of products. LoHa makes its delta in every call. DoRA's norm
/// is that of the merged weight, decoded, and kept until something in it changes; where gradients are wanted it is made
/// in every call, and differentiated too.
namespace mezzotint::nn {

struct AttachOptions {
  double strength = 1;
  /// Computes the adapters' part in float32; else in the dtype of the layer's input (never in that of storage).
  bool float32 = false;
};

struct AttachReport {
  std::vector<std::string> attached;  ///< parameters that are changed, "blocks.0.attn.q.weight"; one for each patch
  struct LeftOut {
    std::string target;  ///< as the file names it
    std::string reason;  ///< one clause
  };
  std::vector<LeftOut> left_out;
};

class Bypass {
 public:
  using Id = uint64_t;

  /// The module must outlive it. Load before: adapters are matched by the names and shapes of its parameters. Weights
  /// can have adapters if they are those of torch::nn::Linear and Conv1d to Conv3d, or of a nn::Layer that multiplies
  /// with them as these do. Detach before saving the module or loading other weights into it.
  explicit Bypass(torch::nn::Module& module);
  /// Detaches everything.
  ~Bypass();
  Bypass(const Bypass&) = delete;
  Bypass& operator=(const Bypass&) = delete;

  /// Reads all patches (as float32) that have a place in the module, by the key maps of adapter/. Biases too; patches
  /// of other parameters, those that replace or enlarge a weight, are left out, with a reason. Throws Error "no-bypass"
  /// where nothing fits, and then attaches nothing.
  Id attach(const adapter::AdapterFile& file, const AttachOptions& options = {});
  /// One adapter of tensors that may be trained: `layer` is a name without ".weight". Throws Error "adapter-shape" and
  /// "no-bypass".
  Id attach(const std::string& layer, const LayerAdapter& adapter, const AttachOptions& options = {});

  const AttachReport& report(Id id) const;
  /// Factors and magnitudes, in the order of the report.
  std::vector<at::Tensor> parameters(Id id) const;

  double strength(Id id) const;
  /// At strength 0 an adapter does nothing, at 1 what it was trained to; what lies between, as in a merge
  /// (adapter/effect.h).
  void set_strength(Id id, double strength);
  bool enabled(Id id) const;
  void enable(Id id, bool on);
  void detach(Id id);
  void detach_all();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mezzotint::nn
