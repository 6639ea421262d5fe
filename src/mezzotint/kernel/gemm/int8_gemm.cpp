#include "mezzotint/kernel/gemm/int8_gemm.h"

#include <algorithm>
#include <cassert>
#include <string>

#include "mezzotint/base/error.h"
#include "mezzotint/base/round_up.h"
#include "mezzotint/kernel/gemm/choice.h"
#include "mezzotint/kernel/gemm/gemm_threads.h"
#include "mezzotint/kernel/gemm/int8_level.h"
#include "mezzotint/kernel/int4.h"

namespace mezzotint::kernel {
namespace {

#if defined(__x86_64__)
using Levels = IsaList<Isa::amx, Isa::avx512vnni, Isa::avxvnni, Isa::avx2, Isa::scalar>;
#else
using Levels = IsaList<Isa::scalar>;
#endif

Int8Level chosen_level() {
  return with_isa<Levels>([]<Isa I> { return int8_level<I>(); });
}

/// Rows of y whose packed codes are held at once: no more codes than stay in a cache that all panels read them from.
constexpr int64_t kMostRows = 1536, kMostCodes = 5 << 20;
constexpr int64_t kAlignment = 64;

using UnpackInt4 = decltype(&unpack_int4<Isa::scalar>);

/// Of columns of b that are unpacked. Not a power of two, at which few sets of a cache would hold them all.
constexpr int64_t unpacked_stride(int64_t depth) {
  return round_up_to(depth, kAlignment) + kAlignment;
}

/// The columns [col0, col0 + kInt8Panel) of a product as one of its own, with their codes of 4 bits unpacked.
Int8Job unpacked(const Int8Job& job, int64_t col0, UnpackInt4 unpack, int8_t* codes) {
  Int8Job panel = job;
  panel.cols = std::min(kInt8Panel, job.cols - col0);
  panel.b = codes;
  panel.b_col = unpacked_stride(job.depth);
  for (int64_t j = 0; j < panel.cols; ++j)
    unpack(reinterpret_cast<const uint8_t*>(job.b) + (col0 + j) * job.b_col, job.depth, codes + j * panel.b_col);
  if (job.epilogue.col_scale != nullptr) panel.epilogue.col_scale += col0;
  if (job.epilogue.bias != nullptr) panel.epilogue.bias += col0;
  if (job.blocks.codes != nullptr) {
    panel.blocks.codes += col0;
    panel.blocks.scales += col0 / kInt8Panel;
  } else {
    panel.y.data = static_cast<std::byte*>(job.y.data) + col0 * (facts(job.y.dtype).bits / 8);
  }
  return panel;
}

/// How a product is cut into tasks; the cut depends on the number of threads, no element of y does.
struct Cut {
  bool stored;           ///< read b as it lies
  int64_t chunk_rows;    ///< packed together
  int64_t part_rows;     ///< of a task
  int64_t packed_bytes;  ///< of a chunk
  int64_t codes_at;      ///< in the scratch of a thread: unpacked codes of b
  int64_t part_bytes;    ///< scratch of a thread

  Cut(const Int8Shape& shape, int64_t rows, int64_t cols, int64_t depth, bool along_depth, bool int4, int threads) {
    stored = along_depth && rows <= shape.stored_rows;
    chunk_rows = rows;
    const int64_t most = std::clamp<int64_t>(kMostCodes / std::max<int64_t>(depth, 1), 192, kMostRows);
    if (!stored) chunk_rows = round_up_to(divide_up(rows, divide_up(rows, most)), shape.tile_rows);
    const int64_t panels = divide_up(cols, kInt8Panel);
    // Few panels: cut their rows too, so that every thread has work.
    const int64_t cuts = stored || threads == 1 ? 1 : std::max<int64_t>(1, 3 * threads / panels);
    part_rows = round_up_to(divide_up(chunk_rows, cuts), shape.tile_rows);
    if (stored) part_rows = rows;
    packed_bytes = stored ? 0 : round_up_to(chunk_rows * divide_up(depth, kInt8Block) * shape.row_bytes, kAlignment);
    codes_at = round_up_to(int8_part_scratch(shape, part_rows, depth), kAlignment);
    part_bytes = codes_at + (int4 ? kInt8Panel * unpacked_stride(depth) : 0);
  }
  size_t bytes(int threads) const { return static_cast<size_t>(packed_bytes + threads * part_bytes + kAlignment); }
};

void run(const Int8Job& job, std::span<std::byte> scratch, int threads) {
  if (job.rows == 0 || job.cols == 0) return;
  threads = gemm_threads(threads);
  const Int8Level level = job.depth > 0 ? chosen_level() : int8_level<Isa::scalar>();  // the others expect codes
  const UnpackInt4 unpack = with_isa([]<Isa I> { return &unpack_int4<I>; });
  const Cut cut(level.shape, job.rows, job.cols, job.depth, job.b_depth == 1, job.b_int4, threads);
  if (scratch.size() < cut.bytes(threads))
    throw Error({.name = "scratch-too-small",
                 .problem = "the int8 product needs more scratch",
                 .expected = std::to_string(cut.bytes(threads)) + " bytes",
                 .found = std::to_string(scratch.size()),
                 .advice = "Ask int8_gemm_scratch_bytes with the same shape and threads."});
  auto* base = reinterpret_cast<std::byte*>(round_up_to(reinterpret_cast<int64_t>(scratch.data()), kAlignment));
  std::byte* parts = base + cut.packed_bytes;
  const int64_t row_bytes = job.depth_blocks() * level.shape.row_bytes;
  const int64_t panels = divide_up(job.cols, kInt8Panel);

  for (int64_t chunk = 0; chunk < job.rows; chunk += cut.chunk_rows) {
    const int64_t rows = std::min(cut.chunk_rows, job.rows - chunk);
    if (!cut.stored) {
      const int64_t some = level.shape.tile_rows * 4;
      parallel_tasks(threads, divide_up(rows, some), [&](int64_t task, int) {
        const int64_t row = task * some;
        level.pack_rows(job, chunk + row, std::min(some, rows - row), base + row * row_bytes);
      });
    }
    const int64_t cuts = divide_up(rows, cut.part_rows);
    parallel_tasks(threads, panels * cuts, [&](int64_t task, int thread) {
      const int64_t row = task % cuts * cut.part_rows;
      Int8Part part;
      part.row0 = chunk + row;
      part.rows = std::min(cut.part_rows, rows - row);
      part.col0 = task / cuts * kInt8Panel;
      part.packed_rows = base + row * row_bytes;
      part.scratch = parts + thread * cut.part_bytes;
      const auto compute = cut.stored ? level.as_stored : level.panel;
      if (!job.b_int4) return compute(job, part);
      const Int8Job panel = unpacked(job, part.col0, unpack, reinterpret_cast<int8_t*>(part.scratch + cut.codes_at));
      part.col0 = 0;
      compute(panel, part);
    });
  }
}

Int8Job forward_job(const Int8Product& p) {
  assert(p.m >= 0 && p.n >= 0 && p.k >= 0 && (p.x.scales == nullptr) == (p.w.scales == nullptr));
  assert(!p.x.int4 && !(p.w.int4 && p.w.scales != nullptr));
  Int8Job job;
  job.rows = p.m, job.cols = p.n, job.depth = p.k;
  job.a = p.x;
  job.b = p.w.codes, job.b_col = p.w.stride, job.b_depth = 1, job.b_int4 = p.w.int4;
  job.b_scales = p.w.scales, job.b_scale_col = p.w.scales_stride, job.b_scale_depth = 1;
  job.epilogue = p.epilogue;
  return job;
}

Int8Job transposed_job(const Int8Product& p) {
  assert(!p.w.int4);
  Int8Job job = forward_job(p);
  job.cols = p.k, job.depth = p.n;
  job.b_col = 1, job.b_depth = p.w.stride;
  job.b_scale_col = 1, job.b_scale_depth = p.w.scales_stride;
  return job;
}

}  // namespace

Isa int8_gemm_level() {
  return with_isa<Levels>([]<Isa I> { return I; });
}

size_t int8_gemm_scratch_bytes(int64_t m, int64_t n, int64_t k, int threads, bool int4) {
  threads = gemm_threads(threads);
  size_t most = 0;
  const auto consider = [&]<Isa... I>(IsaList<I...>) {
    for (const Isa isa : {I...}) {
      if (!machine_has(isa)) continue;
      const ScopedIsaCap cap(isa);
      const Int8Shape shape = chosen_level().shape;
      most = std::max({most, Cut(shape, m, n, k, true, int4, threads).bytes(threads),
                       Cut(shape, m, k, n, false, false, threads).bytes(threads)});
    }
  };
  consider(Levels{});
  return most;
}

void int8_forward(const Int8Product& product, const Output& y, std::span<std::byte> scratch, int threads) {
  Int8Job job = forward_job(product);
  job.y = y;
  run(job, scratch, threads);
}

void int8_forward(const Int8Product& product, const Int8BlockOutput& y, std::span<std::byte> scratch, int threads) {
  Int8Job job = forward_job(product);
  job.blocks = y;
  run(job, scratch, threads);
}

void int8_transposed(const Int8Product& product, const Output& y, std::span<std::byte> scratch, int threads) {
  Int8Job job = transposed_job(product);
  job.y = y;
  run(job, scratch, threads);
}

void int8_transposed(const Int8Product& product, const Int8BlockOutput& y, std::span<std::byte> scratch, int threads) {
  Int8Job job = transposed_job(product);
  job.blocks = y;
  run(job, scratch, threads);
}

}  // namespace mezzotint::kernel
