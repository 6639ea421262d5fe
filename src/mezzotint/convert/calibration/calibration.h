#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What the inputs of layers look like, measured by running the model (tools/calibrate/record.py). docs/calibration.md
/// describes the files. Several files count as one recording of all their tokens; their order does not matter.
namespace mezzotint::convert {

/// Of the inputs x [tokens, K] of one layer.
struct LayerStatistics {
  uint64_t tokens = 0;
  float amax = 0;                    ///< max |x|
  std::vector<float> channel_amax;   ///< [K] max |x_j|
  std::vector<float> channel_mean;   ///< [K] mean x_j
  std::vector<float> second_moment;  ///< [K] mean x_j^2
  std::vector<int64_t> histogram;    ///< of |x| (histogram.h); the counts sum up to tokens * K
  bool has_gram = false;             ///< whether read_gram_rows has X'X / T

  /// The magnitude that p percent of all x do not exceed, to the width of a bin (an eighth of an octave); 100 = amax.
  float percentile(double p) const;
};

/// Immutable; cheap to copy; safe to use from several threads.
class Calibration {
 public:
  /// Reads everything but the gram matrices. Paths are those of io::Source::open. Throws its Errors and
  ///   "not-calibration"      a safetensors file without our metadata key
  ///   "calibration-version"  written for another version of this program
  ///   "bad-calibration"      a tensor is missing, unknown, of wrong dtype or shape, or holds what no recording gives
  ///   "calibration-twice"    two files with the same content, which would count double
  ///   "calibration-mismatch" two files disagree on the width of a layer
  static Calibration open(const std::vector<std::filesystem::path>& files);

  /// Statistics of a layer of a checkpoint (the weight's name without ".weight"), or null. Names need not agree in the
  /// prefix of the component ("model.diffusion_model.") where only one layer can be meant.
  const LayerStatistics* find(std::string_view layer) const;
  /// The same for a layer with `cols` inputs. Throws Error "calibration-mismatch" where the file says another number.
  const LayerStatistics* find(std::string_view layer, int64_t cols) const;

  /// X'X / T: writes rows [row0, row0 + rows) of the lower triangle to `out`, rows K floats apart; what lies above the
  /// diagonal is left alone. Streamed from the files (those that have it, weighted by their tokens) through at most
  /// 3 MiB of scratch. False where there is none. Throws Error "bad-calibration" for values that are not finite, or
  /// whose diagonal is not the second moment.
  bool read_gram_rows(std::string_view layer, int64_t row0, int64_t rows, float* out) const;

  /// Identity of the contents, independent of names and order of the files. Of gram matrices only the last row counts.
  uint64_t fingerprint() const;
  /// As recipes have it: 16 hexadecimal digits.
  std::string fingerprint_text() const;

  /// Names of layers in the files, in alphabetic order.
  std::vector<std::string> layers() const;
  /// Those that none of these layers of a model has for its statistics.
  std::vector<std::string> unused(std::span<const std::string> model_layers) const;

  uint64_t bytes() const;  ///< of memory held

 private:
  struct State;
  explicit Calibration(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace mezzotint::convert
