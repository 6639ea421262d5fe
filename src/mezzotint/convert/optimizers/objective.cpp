#include "mezzotint/convert/optimizers/objective.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "mezzotint/base/round_up.h"
#include "mezzotint/convert/optimizers/subspace.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/dense.h"
#include "mezzotint/kernel/feedback.h"
#include "mezzotint/kernel/transpose.h"

namespace mezzotint::convert {
namespace {

constexpr int64_t kPanelFloats = 8 << 20;
constexpr int64_t kLoadRows = 64;
constexpr int kMostAttempts = 6;
// What the rotated basis is rounded to is not stored, so it may be finer than the format. With the format's own bits
// its error adds to that of the codes (docs/quality.md).
constexpr int64_t kExtraBits = 3;

/// Rows of a panel: enough to keep the products busy, few enough for memory. Depends on the shape alone.
int64_t panel_rows(int64_t cols) {
  return std::clamp<int64_t>(kPanelFloats / std::max<int64_t>(cols, 1) / 64 * 64, 64, 4096);
}

int64_t segment_columns(int64_t cols, const ObjectiveOptions& options) {
  if (options.moments == Moments::basis) return std::max<int64_t>(cols, 1);
  if (options.segment <= 0 || cols <= options.segment) return cols;
  // Equal parts, so that no small one is left over.
  const int64_t parts = divide_up(cols, options.segment);
  return round_up_to(divide_up(cols, parts), kernel::kFeedbackColumns);
}

ObjectiveOptions rotated_options(ObjectiveOptions options) {
  options.signs.reset();
  options.bf16_moments = false;  // rotated weights are no bf16
  return options;
}

}  // namespace

struct Objective::Segment {
  int64_t col0;
  LowerTiles h, l;
  std::vector<int32_t> column_at;  // by position
  std::unique_ptr<FeedbackRounder> rounder;
};

Objective::~Objective() = default;

Objective::Objective(ObjectiveSource source, const ObjectiveOptions& options, size_t workers,
                     const io::platform::File* scratch, uint64_t offset)
    : source_(std::move(source)), options_(options), buffers_(workers), damping_(options.damping) {
  const int64_t step = segment_columns(source_.cols, options);
  for (int64_t col0 = 0; col0 < source_.cols; col0 += step) {
    const int64_t n = std::min(step, source_.cols - col0);
    std::vector<int32_t> order(static_cast<size_t>(n));
    for (int64_t p = 0; p < n; ++p) order[static_cast<size_t>(p)] = static_cast<int32_t>(col0 + n - 1 - p);
    if (options.moments == Moments::basis) {
      segments_.push_back({col0, LowerTiles(0), LowerTiles(0), std::move(order), nullptr});
    } else if (scratch != nullptr) {
      const uint64_t bytes = LowerTiles::bytes(n);
      segments_.push_back({col0, {n, *scratch, offset}, {n, *scratch, offset + bytes}, std::move(order), nullptr});
      offset += 2 * bytes;
    } else {
      segments_.push_back({col0, LowerTiles(n), LowerTiles(n), std::move(order), nullptr});
    }
  }
  if (!options.signs) return;
  rotation_ = std::make_unique<Incoherence>(source_.cols, *options.signs);
  ObjectiveSource rotated{.rows = source_.rows, .cols = source_.cols, .weights = {}, .moments = {}};
  rotated.weights = [this](int64_t row0, int64_t rows, size_t worker, float* out) {
    source_.weights(row0, rows, worker, out);
    for (int64_t i = 0; i < rows * source_.cols; ++i) out[i] = std::isfinite(out[i]) ? out[i] : 0.0f;
    rotation_->rotate_columns(out, rows);
  };
  rotated.moments = [this](int64_t row0, int64_t rows, float* out) {
    std::copy_n(rotated_moments_.data() + row0 * source_.cols, rows * source_.cols, out);
  };
  if (options.basis_weight > 0) {
    rotated_basis_.assign(source_.basis.begin(), source_.basis.end());
    rotation_->rotate_columns(rotated_basis_.data(), static_cast<int64_t>(rotated_basis_.size()) / source_.cols);
    rotated.basis = rotated_basis_;
  }
  rotated_ = std::make_unique<Objective>(std::move(rotated), rotated_options(options), workers, scratch, offset);
}

uint64_t Objective::tile_bytes(int64_t cols, const ObjectiveOptions& options) {
  if (options.moments == Moments::basis) return 0;
  const int64_t step = segment_columns(cols, options);
  uint64_t bytes = 0;
  for (int64_t col0 = 0; col0 < cols; col0 += step) bytes += 2 * LowerTiles::bytes(std::min(step, cols - col0));
  if (options.signs) bytes *= 2;
  return bytes;
}

uint64_t Objective::panel_bytes(int64_t cols, const ObjectiveOptions& options, size_t workers) {
  if (options.moments == Moments::basis) return 0;  // BasisFactor::bytes instead
  if (options.signs) {                              // one after another, but that buffers stay
    const ObjectiveOptions rotated = rotated_options(options);
    const auto side = static_cast<uint64_t>(cols);
    const uint64_t moments = options.moments == Moments::inputs ? side * (side + 256) * sizeof(float) : 0;
    ObjectiveOptions own = options;
    own.signs.reset();
    return panel_bytes(cols, own, workers) + panel_bytes(cols, rotated, workers) + moments;
  }
  const uint64_t buffers = 3 * LowerTiles::kTileFloats * sizeof(float) * workers;
  const auto floats = static_cast<uint64_t>(cols) * sizeof(float);
  if (options.moments == Moments::inputs)  // a row of tiles and a row of moments for every worker
    return buffers + workers * (static_cast<uint64_t>(LowerTiles::kTile) + 1) * floats;
  const uint64_t loads = workers * kLoadRows * floats;
  if (options.bf16_moments)
    return buffers + 2 * loads + workers * bf16_scratch_bytes() + static_cast<uint64_t>(panel_rows(cols)) * floats / 2;
  return buffers + loads + static_cast<uint64_t>(panel_rows(cols)) * floats;
}

uint64_t Objective::strip_bytes(const formats::Layout& layout, const ObjectiveOptions& options, int64_t rows) {
  const uint64_t attempts = options.signs ? 2 * sizeof(float) * static_cast<uint64_t>(rows * layout.cols) : 0;
  return FeedbackRounder::workspace_bytes(layout, rows) + attempts;
}

void Objective::append_stages(Job& job, std::function<void()> then) {
  if (options_.moments == Moments::basis) return append_basis(job, std::move(then));
  if (rotated_)
    then = [this, &job, last = std::move(then)]() mutable {
      damping_ > 0 ? append_rotated(job, std::move(last)) : last();
    };
  if (options_.moments == Moments::inputs)
    append_input_moments(job);
  else
    append_weight_moments(job);
  job.stages.push_back({.tiles = 0, .run = {}, .finish = [this, &job, then = std::move(then)]() mutable {
                          finish_moments();
                          append_factor(job, std::move(then));
                        }});
}

void Objective::append_basis(Job& job, std::function<void()> then) {
  job.stages.push_back({.tiles = 1,
                        .run =
                            [this](size_t, size_t) {
                              Segment& segment = segments_[0];
                              basis_factor_.emplace(source_.basis, source_.cols, segment.column_at, damping_);
                              segment.rounder = std::make_unique<FeedbackRounder>(*basis_factor_, 0, segment.column_at);
                            },
                        .finish = std::move(then)});
}

void Objective::append_rotated(Job& job, std::function<void()> then) {
  if (options_.moments == Moments::inputs)
    job.stages.push_back({.tiles = 1,
                          .run =
                              [this](size_t, size_t) {
                                const int64_t n = source_.cols;
                                rotated_moments_.resize(static_cast<size_t>(n * n));
                                source_.moments(0, n, rotated_moments_.data());
                                for (float& value : rotated_moments_) value = std::isfinite(value) ? value : 0.0f;
                                rotation_->rotate_moments(rotated_moments_);
                              },
                          .finish = {}});
  rotated_->append_stages(job, [this, last = std::move(then)] {
    rotated_moments_ = {};
    last();
  });
}

// Panels come one after another and each tile adds them up in that order, whatever the threads.
void Objective::append_weight_moments(Job& job) {
  const int64_t cols = source_.cols, height = panel_rows(cols);
  struct Piece {
    Segment* segment;
    TilePair pair;
  };
  auto pieces = std::make_shared<std::vector<Piece>>();
  for (Segment& segment : segments_)
    for (const TilePair& pair : tile_pairs(segment.h.across())) pieces->push_back({&segment, pair});
  for (int64_t row0 = 0; row0 < source_.rows; row0 += height) {
    const int64_t rows = std::min(height, source_.rows - row0);
    job.stages.push_back({.tiles = static_cast<size_t>(divide_up(rows, kLoadRows)),
                          .run =
                              [this, row0, rows](size_t piece, size_t worker) {
                                const int64_t first = static_cast<int64_t>(piece) * kLoadRows;
                                load_panel(row0 + first, first, std::min(kLoadRows, rows - first), worker);
                              },
                          .finish = {}});
    job.stages.push_back({.tiles = pieces->size(),
                          .run =
                              [this, pieces, rows, cols](size_t piece, size_t worker) {
                                auto& [segment, pair] = (*pieces)[piece];
                                if (options_.bf16_moments)
                                  add_panel_bf16(segment->h, pair, panel_bf16_.data() + segment->col0 * panel_stride_,
                                                 rows, panel_stride_, buffers_[worker]);
                                else
                                  add_panel(segment->h, pair, panel_.data() + segment->col0, rows, cols,
                                            buffers_[worker]);
                              },
                          .finish = {}});
  }
  panel_stride_ = std::min(height, source_.rows);
  const auto floats = static_cast<size_t>(panel_stride_ * cols);
  if (options_.bf16_moments)
    panel_bf16_.resize(floats);
  else
    panel_.resize(floats);
}

/// Rows of the weight become rows [at, at + count) of the panel, columns by position.
void Objective::load_panel(int64_t row0, int64_t at, int64_t count, size_t worker) {
  const int64_t cols = source_.cols;
  std::vector<float> values(static_cast<size_t>(count * cols)), ordered;
  source_.weights(row0, count, worker, values.data());
  if (options_.bf16_moments) ordered.resize(values.size());
  float* const panel = options_.bf16_moments ? ordered.data() : panel_.data() + at * cols;
  for (int64_t r = 0; r < count; ++r)
    for (const Segment& segment : segments_) {
      const float* from = values.data() + r * cols;
      float* to = panel + r * cols + segment.col0;
      for (const int32_t column : segment.column_at) {
        const float x = from[column];
        *to++ = std::isfinite(x) ? x : 0.0f;
      }
    }
  if (!options_.bf16_moments) return;
  auto* narrow = reinterpret_cast<uint16_t*>(values.data());
  kernel::cast({ordered.data(), DType::f32, count, cols, cols}, DType::bf16, narrow, cols, kernel::Overflow::saturate);
  kernel::transpose(narrow, count, cols, cols, panel_bf16_.data() + at, panel_stride_, sizeof(uint16_t));
}

// Large second moments first (act-order), so that their errors are the ones that others can make up for.
void Objective::append_input_moments(Job& job) {
  struct Piece {
    Segment* segment;
    int64_t tile_row;
  };
  auto pieces = std::make_shared<std::vector<Piece>>();
  for (Segment& segment : segments_)
    for (int64_t i = 0; i < segment.h.across(); ++i) pieces->push_back({&segment, i});
  job.stages.push_back({.tiles = 1,
                        .run =
                            [this](size_t, size_t) {
                              const int64_t cols = source_.cols;
                              std::vector<float> row(static_cast<size_t>(cols)), size(row.size());
                              for (int64_t c = 0; c < cols; ++c) {
                                source_.moments(c, 1, row.data());
                                size[static_cast<size_t>(c)] = row[static_cast<size_t>(c)];
                              }
                              for (Segment& segment : segments_)
                                std::stable_sort(segment.column_at.begin(), segment.column_at.end(),
                                                 [&](int32_t a, int32_t b) {
                                                   return size[static_cast<size_t>(a)] < size[static_cast<size_t>(b)];
                                                 });
                            },
                        .finish = {}});
  job.stages.push_back(
      {.tiles = pieces->size(),
       .run =
           [this, pieces](size_t piece, size_t) {
             auto& [segment, i] = (*pieces)[piece];
             constexpr int64_t kTile = LowerTiles::kTile;
             const int64_t n = segment->h.order(), first = segment->h.first(i), size = segment->h.size(i);
             std::vector<int64_t> position(static_cast<size_t>(n));
             for (int64_t p = 0; p < n; ++p)
               position[static_cast<size_t>(segment->column_at[static_cast<size_t>(p)] - segment->col0)] = p;
             const int64_t width = std::min(n, first + size);
             std::vector<float> tiles(static_cast<size_t>(size * width)), row(static_cast<size_t>(source_.cols));
             for (int64_t a = 0; a < n; ++a) {
               source_.moments(segment->col0 + a, 1, row.data());
               const int64_t p = position[static_cast<size_t>(a)];
               for (int64_t b = 0; b <= a; ++b) {
                 const int64_t q = position[static_cast<size_t>(b)];
                 const int64_t lower = std::max(p, q) - first;
                 if (lower < 0 || lower >= size) continue;
                 const float value = row[static_cast<size_t>(segment->col0 + b)];
                 tiles[static_cast<size_t>(lower * width + std::min(p, q))] = std::isfinite(value) ? value : 0.0f;
               }
             }
             std::vector<float> tile(static_cast<size_t>(LowerTiles::kTileFloats));
             for (int64_t j = 0; j <= i; ++j) {
               float* out = segment->h.open(i, j, tile.data());
               for (int64_t r = 0; r < size; ++r)
                 std::copy_n(tiles.data() + r * width + j * kTile, std::min(segment->h.size(j), width - j * kTile),
                             out + r * kTile);
               segment->h.close(i, j, out);
             }
           },
       .finish = {}});
}

/// H += basis_weight V V', of these columns by position.
void Objective::add_basis(Segment& segment) {
  const int64_t rank = static_cast<int64_t>(source_.basis.size()) / std::max<int64_t>(source_.cols, 1);
  if (options_.basis_weight <= 0 || rank == 0) return;
  const int64_t n = segment.h.order();
  std::vector<float> v(static_cast<size_t>(n * rank));
  for (int64_t p = 0; p < n; ++p)
    for (int64_t i = 0; i < rank; ++i)
      v[static_cast<size_t>(p * rank + i)] =
          source_.basis[static_cast<size_t>(i * source_.cols + segment.column_at[static_cast<size_t>(p)])];
  for (const auto& [i, j] : tile_pairs(segment.h.across())) {
    float* tile = segment.h.open(i, j, buffers_[0][0]);
    dense::multiply(dense::Transposed::no, dense::Transposed::yes, segment.h.size(i), segment.h.size(j), rank,
                    static_cast<float>(options_.basis_weight), v.data() + segment.h.first(i) * rank, rank,
                    v.data() + segment.h.first(j) * rank, rank, 1.0f, tile, kTileStride);
    segment.h.close(i, j, tile);
  }
}

/// Scales H to a mean diagonal of 1, replaces it by a projector where that is asked for, adds a basis, and damps it.
void Objective::finish_moments() {
  panel_ = {};
  panel_bf16_ = {};
  for (Segment& segment : segments_) {
    const std::vector<float> before = diagonal(segment.h);
    const double sum = std::accumulate(before.begin(), before.end(), 0.0);
    const auto factor = static_cast<float>(sum > 0 ? static_cast<double>(before.size()) / sum : 1.0);
    for (const TilePair& pair : tile_pairs(segment.h.across())) scale_tiles(segment.h, pair, factor, buffers_[0]);
    if (options_.moments == Moments::subspace) {
      const int64_t rank = divide_up(options_.subspace * segment.h.order(), std::max<int64_t>(source_.cols, 1));
      project_on_leading_eigenvectors(segment.h, rank, buffers_[0]);
    }
    add_basis(segment);
    add_to_diagonal(segment.h, std::vector<float>(before.size(), static_cast<float>(damping_)));
  }
}

void Objective::append_factor(Job& job, std::function<void()> then) {
  ++attempts_;
  failed_ = false;
  int64_t most = 0;
  for (const Segment& segment : segments_) most = std::max(most, segment.h.across());
  for (int64_t j = 0; j < most; ++j) {
    auto pieces = std::make_shared<std::vector<std::pair<Segment*, int64_t>>>();
    auto below = std::make_shared<std::vector<std::pair<Segment*, int64_t>>>();
    for (Segment& segment : segments_)
      for (int64_t i = j; i < segment.h.across(); ++i) {
        pieces->emplace_back(&segment, i);
        if (i > j) below->emplace_back(&segment, i);
      }
    job.stages.push_back({.tiles = pieces->size(),
                          .run =
                              [this, pieces, j](size_t piece, size_t worker) {
                                auto& [segment, i] = (*pieces)[piece];
                                if (!failed_) update_column(segment->h, segment->l, i, j, buffers_[worker]);
                              },
                          .finish = {}});
    job.stages.push_back({.tiles = segments_.size(),
                          .run =
                              [this, j](size_t piece, size_t worker) {
                                Segment& segment = segments_[piece];
                                if (failed_ || j >= segment.h.across()) return;
                                if (!factor_pivot(segment.l, j, buffers_[worker])) failed_ = true;
                              },
                          .finish = {}});
    job.stages.push_back({.tiles = below->size(),
                          .run =
                              [this, below, j](size_t piece, size_t worker) {
                                auto& [segment, i] = (*below)[piece];
                                if (!failed_) solve_column(segment->l, i, j, buffers_[worker]);
                              },
                          .finish = {}});
  }
  job.stages.push_back(
      {.tiles = 0, .run = {}, .finish = [this, &job, then = std::move(then)]() mutable {
         if (failed_ && attempts_ < kMostAttempts) {
           const double more = 9 * damping_;
           damping_ += more;
           for (Segment& segment : segments_)
             add_to_diagonal(segment.h,
                             std::vector<float>(static_cast<size_t>(segment.h.order()), static_cast<float>(more)));
           return append_factor(job, std::move(then));
         }
         if (failed_) damping_ = 0;
         for (Segment& segment : segments_)
           if (!failed_)
             segment.rounder = std::make_unique<FeedbackRounder>(segment.h, segment.l, segment.col0, segment.column_at);
         then();
       }});
}

FeedbackSums Objective::round_segments(const formats::Layout& layout, const formats::Parameters& parameters,
                                       const formats::Tile& tile, FeedbackRounder::Workspace& workspace, float* out,
                                       int sweeps, const ScaledGrid* grid) const {
  FeedbackSums sums;
  sums.rows = tile.rows;
  for (const Segment& segment : segments_) {
    const FeedbackSums part = segment.rounder->round(layout, parameters, tile, workspace, out, sweeps, grid);
    sums.plain += part.plain;
    sums.rounded += part.rounded;
    sums.rows_plain = std::max(sums.rows_plain, part.rows_plain);
  }
  return sums;
}

FeedbackSums Objective::round(const formats::Layout& layout, const formats::Parameters& parameters,
                              const formats::Tile& tile, FeedbackRounder::Workspace& workspace, float* out) const {
  FeedbackSums sums = round_segments(layout, parameters, tile, workspace, out, options_.sweeps, nullptr);
  if (!rotated_ || rotated_->damping() == 0) return sums;
  const std::vector<float> target = rounded_in_rotated_basis(layout, parameters, tile, workspace);
  formats::Tile aim = tile;
  aim.data = target.data();
  aim.row_stride = layout.cols;
  std::vector<float> start(target.size());
  round_segments(layout, parameters, aim, workspace, start.data(), 0, nullptr);
  sums.rounded = 0;
  for (const Segment& segment : segments_) {
    const FeedbackSums part =
        segment.rounder->challenge(layout, parameters, tile, start.data(), workspace, out, options_.sweeps);
    sums.rounded += part.rounded;
    sums.rows_rotated = std::max(sums.rows_rotated, part.rows - part.rows_plain);
  }
  sums.rows_plain = std::min(sums.rows_plain, sums.rows - sums.rows_rotated);
  return sums;
}

/// U' Q V' for the codes Q that LDLQ finds for U W V, row by row on integers.
std::vector<float> Objective::rounded_in_rotated_basis(const formats::Layout& layout,
                                                       const formats::Parameters& parameters, const formats::Tile& tile,
                                                       FeedbackRounder::Workspace& workspace) const {
  const int64_t cols = layout.cols;
  std::vector<float> values(static_cast<size_t>(tile.rows * cols));
  for (int64_t r = 0; r < tile.rows; ++r)
    std::copy_n(static_cast<const float*>(tile.data) + r * tile.row_stride, cols, values.data() + r * cols);
  rotation_->rotate(values.data(), tile.row0, tile.rows);
  const int64_t bits = std::clamp<int64_t>(layout.row_bytes * 8 / std::max<int64_t>(cols, 1), 2, 8) + kExtraBits;
  const ScaledGrid grid =
      ScaledGrid::of_rows(static_cast<int>(bits), values.data(), tile.rows, cols, FeedbackRounder::padded(tile.rows));
  formats::Tile rotated = tile;
  rotated.data = values.data();
  rotated.row_stride = cols;
  rotated_->round_segments(layout, parameters, rotated, workspace, values.data(), 0, &grid);
  rotation_->restore(values.data(), tile.row0, tile.rows);
  return values;
}

RoundedLayer round_layer(const formats::Layout& layout, const formats::Parameters& parameters, const float* w,
                         const float* gram, const ObjectiveOptions& options, int threads,
                         const io::platform::File* scratch, std::span<const float> basis) {
  const int64_t cols = layout.cols;
  RoundedLayer result;
  result.values.resize(static_cast<size_t>(layout.rows * cols));
  const auto workers = static_cast<size_t>(std::max(1, threads));
  ObjectiveSource source{
      .rows = layout.rows,
      .cols = cols,
      .weights = [=](int64_t row0, int64_t rows, size_t,
                     float* out) { std::copy_n(w + row0 * cols, rows * cols, out); },
      .moments = [=](int64_t row0, int64_t rows, float* out) { std::copy_n(gram + row0 * cols, rows * cols, out); },
      .basis = basis};
  Objective objective(std::move(source), options, workers, scratch);
  std::vector<FeedbackRounder::Workspace> workspaces(workers);
  const std::vector<formats::RowRange> strips = formats::row_tiles(layout, kStripRows);
  std::vector<FeedbackSums> sums(strips.size());
  auto job = std::make_unique<Job>();
  Job& stages = *job;
  objective.append_stages(stages, [&] {
    result.damping = objective.damping();
    if (result.damping == 0) return;
    stages.stages.push_back({.tiles = strips.size(),
                             .run =
                                 [&](size_t strip, size_t worker) {
                                   const formats::RowRange range = strips[strip];
                                   const formats::Tile tile{.data = w + range.row0 * cols,
                                                            .dtype = DType::f32,
                                                            .row0 = range.row0,
                                                            .rows = range.rows,
                                                            .col0 = 0,
                                                            .cols = cols,
                                                            .row_stride = cols};
                                   sums[strip] = objective.round(layout, parameters, tile, workspaces[worker],
                                                                 result.values.data() + range.row0 * cols);
                                 },
                             .finish = {}});
  });
  Scheduler scheduler(
      workers, 1, [&] { return std::move(job); }, nullptr);
  scheduler.run([] {});
  for (const FeedbackSums& part : sums) result.sums.add(part);
  return result;
}

}  // namespace mezzotint::convert
