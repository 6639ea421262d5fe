#pragma once
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"

/// Recording what the inputs of a module's layers look like, while it runs.
namespace mezzotint::nn {

struct RecordOptions {
  bool gram = false;  ///< also X'X: 4 K^2 bytes for a layer of K inputs
  /// Patterns (PCRE2, whole names) of the layers to record; empty = all.
  std::vector<std::string> layers;
};

/// Records from its making to its end, or stop(). It watches the products of this thread (torch's RecordFunction) for
/// the module's weights, so any module will do: ours, torch's own or others, quantized or not, under autocast and with
/// gradients, with adapters beside its layers (bypass/bypass.h). Without a recorder nothing is slower. A layer is a
/// parameter NAME.weight of rank 2 or 3 that multiplies inputs from the right, x W' (linear, addmm, matmul, mm, bmm).
/// Make it after loading; recorders may overlap, and must end in the thread where they began. Statistics are of inputs
/// in front of pre_quant_scale.
class CalibrationRecorder {
 public:
  explicit CalibrationRecorder(const torch::nn::Module& module, const RecordOptions& options = {});
  ~CalibrationRecorder();
  CalibrationRecorder(const CalibrationRecorder&) = delete;
  CalibrationRecorder& operator=(const CalibrationRecorder&) = delete;

  /// Ends the recording; what was recorded stays.
  void stop();

  /// Names (without ".weight") of the layers that were used, in alphabetic order.
  std::vector<std::string> layers() const;
  /// Throws Error "nothing-recorded" for others, and what went wrong while recording (out of memory).
  convert::LayerStatistics statistics(std::string_view layer) const;
  /// Rows of inputs that were left out because of inf, NaN or magnitudes beyond 1e19.
  uint64_t skipped() const;
  /// Layers of the module that no product used.
  std::vector<std::string> unused() const;

  /// Writes a calibration file (docs/calibration.md) for `mezzotint convert --calibration`; `prefix` comes in front of
  /// the names. Throws Error "nothing-recorded" and those of io::Writer, and what went wrong while recording.
  void save(const std::filesystem::path& path, const std::string& prefix = "", bool overwrite = false) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mezzotint::nn
