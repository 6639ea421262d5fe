#pragma once
#include <cstdint>
#include <mutex>
#include <vector>

#include "mezzotint/kernel/error_sums.h"

/// Errors of a layer, measured while its tiles pass by: no second pass over the data.
namespace mezzotint::convert {

/// What a meter has seen. Everything but the three ratios is a sum, so layers add up to a model.
struct MeasuredErrors : kernel::ErrorSums {
  uint64_t elements = 0;

  /// sqrt(sum e^2 / sum a^2); 0 where nothing differs, +inf where only the source is zero.
  double relative_error() const;
  /// 10 log10(sum a^2 / sum e^2); +inf where nothing differs.
  double sqnr_db() const;
  double cosine() const;
  /// Root mean square of the finite source values: the size of a typical weight.
  double rms() const;

  void add(const MeasuredErrors& other);
};

/// Where bin `bin` of ErrorSums' counts begins (kernel/error_sums.h); 0 for bin 0.
double bin_start(int bin);

/// Collects the errors of one layer from its tiles, which may come in any order and from several threads. Each tile is
/// summed up on its own and result() adds the tiles in their order: the sums depend on how the layer is cut into tiles,
/// never on threads. About 1 ns an element (AVX-512); memory: 56 bytes a tile and 2 KiB.
class LayerMeter {
 public:
  explicit LayerMeter(size_t tiles);

  /// `count` values of the source and what they became. Calls for one tile must come one after another and are added
  /// in that order; calls for different tiles may overlap. Each call costs about as much as 500 elements.
  void add(size_t tile, const float* source, const float* decoded, uint64_t count);
  /// After the last add().
  MeasuredErrors result() const;

 private:
  struct TileSums {
    double a2 = 0, b2 = 0, ab = 0, e2 = 0;
  };
  std::vector<TileSums> tiles_;
  std::mutex mutex_;
  MeasuredErrors shared_;  // whatever adds up exactly in any order: counts and maxima
};

}  // namespace mezzotint::convert
