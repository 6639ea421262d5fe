#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {

/// How far a run over layers is, by their bytes, and whether it is to stop.
class LayerProgress {
 public:
  using Callback = std::function<void(uint64_t done, uint64_t total, const std::string& layer)>;

  /// Both outlive this; `cancel` may be null.
  LayerProgress(const Callback& callback, const std::atomic<bool>* cancel) : callback_(callback), cancel_(cancel) {}

  void expect(uint64_t bytes) { total_ += bytes; }

  void begin(const std::string& layer, uint64_t bytes) {
    done_ += bytes_;
    bytes_ = bytes;
    layer_ = layer;
    report(0);
  }

  /// `share` of the layer is done. Throws Error "cancelled".
  void report(double share) const {
    if (cancel_ != nullptr && cancel_->load())
      throw Error({.name = "cancelled", .problem = "stopped; nothing was written"});
    if (callback_) callback_(done_ + static_cast<uint64_t>(share * static_cast<double>(bytes_)), total_, layer_);
  }

 private:
  const Callback& callback_;
  const std::atomic<bool>* cancel_;
  uint64_t done_ = 0, total_ = 0, bytes_ = 0;
  std::string layer_;
};

}  // namespace mezzotint::convert
