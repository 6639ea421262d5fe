#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mezzotint/convert/optimizers/feedback_rounder.h"
#include "mezzotint/convert/optimizers/incoherence.h"
#include "mezzotint/convert/scheduler.h"

namespace mezzotint::convert {

/// Where H comes from.
enum class Moments : uint8_t {
  weights,   ///< W'W / mean(diag): no data
  inputs,    ///< X'X / T, measured
  basis,     ///< V V' of orthonormal vectors that are given: inputs that are to see less of the errors than others
  subspace,  ///< the projector onto leading right singular vectors of W: what "learned rounding" minimises
};

struct ObjectiveOptions {
  Moments moments = Moments::weights;
  /// Added to the diagonal, as a multiple of its mean. Raised tenfold, up to five times, where the factor fails.
  double damping = 0.3;
  int sweeps = 0;        ///< of coordinate descent
  int64_t subspace = 0;  ///< rank of the projector; segments take their share of it
  /// H is cut into diagonal blocks of this many columns, so that time and memory grow less than quadratically;
  /// 0 = whole.
  int64_t segment = 0;
  /// Not Moments::basis: H, brought to a mean diagonal of 1, also gets so many V V' of ObjectiveSource::basis.
  double basis_weight = 0;
  /// Moments::weights, subspace: H from weights rounded to bf16, which multiply faster (hessian.h).
  bool bf16_moments = false;
  /// QuIP: the key of the signs of a random rotation (incoherence.h). Every row is then rounded a second time: by LDLQ
  /// in the rotated basis, on a grid of its own that nothing stores, from there back and by LDLQ into the format's
  /// codes, and by the sweeps. Where that is lower, it stays. Takes a second H and factor.
  std::optional<uint64_t> signs;
};

/// Where the bytes for an objective come from; each may be called from several threads.
struct ObjectiveSource {
  int64_t rows = 0, cols = 0;
  /// Moments::weights, subspace: writes rows of the weight (float32, after the transform, `cols` apart);
  /// Moments::basis: of the basis. Values that are not finite count as zero.
  std::function<void(int64_t row0, int64_t rows, size_t worker, float* out)> weights;
  /// Moments::inputs: writes rows of the lower triangle of X'X / T, `cols` apart; what lies above the diagonal is not
  /// looked at.
  std::function<void(int64_t row0, int64_t rows, float* out)> moments;
  /// Moments::basis, or with a basis_weight: V' [any, cols]; must outlive the objective.
  std::span<const float> basis;
};

/// Rows of a weight that are rounded together.
inline constexpr int64_t kStripRows = 256;

/// H and its factor for one matrix, and what rounds rows by them. Made by stages of a job (scheduler.h), then
/// immutable.
class Objective {
 public:
  /// `scratch`, if given, is a file for the tiles from `offset` on; else they lie in memory. The bits are the same.
  Objective(ObjectiveSource source, const ObjectiveOptions& options, size_t workers,
            const io::platform::File* scratch = nullptr, uint64_t offset = 0);
  ~Objective();

  /// Bytes of tiles, in memory or in the scratch file; and of everything else while the objective is made.
  static uint64_t tile_bytes(int64_t cols, const ObjectiveOptions& options);
  static uint64_t panel_bytes(int64_t cols, const ObjectiveOptions& options, size_t workers);
  /// Bytes that round() needs for a strip of so many rows, the workspace included.
  static uint64_t strip_bytes(const formats::Layout& layout, const ObjectiveOptions& options, int64_t rows);

  /// Appends what has to be done to `job`, and `then` behind it, which may append more.
  void append_stages(Job& job, std::function<void()> then);

  /// The damping that the factor took in the end; 0 where there is none: round() then rounds plainly.
  double damping() const { return damping_; }

  /// As FeedbackRounder::round, over all segments. `workspace` is one thread's. With ObjectiveOptions::signs `out` must
  /// not be the tile's memory, and the result depends on the tile's rows: rows that are mixed are those of one tile.
  FeedbackSums round(const formats::Layout& layout, const formats::Parameters& parameters, const formats::Tile& tile,
                     FeedbackRounder::Workspace& workspace, float* out) const;

 private:
  struct Segment;

  void append_weight_moments(Job& job);
  void load_panel(int64_t row0, int64_t at, int64_t count, size_t worker);
  void append_input_moments(Job& job);
  void append_basis(Job& job, std::function<void()> then);
  void append_factor(Job& job, std::function<void()> then);
  void finish_moments();
  void add_basis(Segment& segment);
  void append_rotated(Job& job, std::function<void()> then);
  FeedbackSums round_segments(const formats::Layout& layout, const formats::Parameters& parameters,
                              const formats::Tile& tile, FeedbackRounder::Workspace& workspace, float* out, int sweeps,
                              const ScaledGrid* grid) const;
  std::vector<float> rounded_in_rotated_basis(const formats::Layout& layout, const formats::Parameters& parameters,
                                              const formats::Tile& tile, FeedbackRounder::Workspace& workspace) const;

  ObjectiveSource source_;
  ObjectiveOptions options_;
  std::vector<Segment> segments_;
  std::optional<BasisFactor> basis_factor_;
  std::vector<TileBuffers> buffers_;  // one per worker
  std::vector<float> panel_;
  std::vector<uint16_t> panel_bf16_;  // transposed
  int64_t panel_stride_ = 0;
  double damping_ = 0;
  int attempts_ = 0;
  std::atomic<bool> failed_{false};

  std::unique_ptr<Incoherence> rotation_;  // with ObjectiveOptions::signs, and
  std::unique_ptr<Objective> rotated_;     // V'HV and its factor
  std::vector<float> rotated_moments_;     // while it is made from X'X
  std::vector<float> rotated_basis_;
};

struct RoundedLayer {
  std::vector<float> values;  ///< [rows, cols], each the value of a code
  FeedbackSums sums;
  double damping = 0;
};

/// A whole weight in memory: `w` [layout.rows, layout.cols] float32, finite, after the transform, of one expert. `gram`
/// is X'X / T [cols, cols] for Moments::inputs; `scratch` as for Objective, `basis` as for ObjectiveSource.
RoundedLayer round_layer(const formats::Layout& layout, const formats::Parameters& parameters, const float* w,
                         const float* gram, const ObjectiveOptions& options, int threads,
                         const io::platform::File* scratch = nullptr, std::span<const float> basis = {});

}  // namespace mezzotint::convert
