#include "mezzotint/kernel/gemm/quantize_rows.h"

#include <algorithm>
#include <cassert>
#include <string>

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/gemm/gemm_threads.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::kernel {
namespace {

/// Rows of a task.
constexpr int64_t kTaskRows = 16;

using Level = decltype(&quantize_int8_rows<Isa::scalar>);

}  // namespace

size_t quantize_int8_scratch_bytes(int64_t rows, int64_t cols, int threads) {
  const int64_t tasks = (rows + kTaskRows - 1) / kTaskRows;
  return static_cast<size_t>((gemm_threads(threads) * cols + tasks) * 4 + 8);
}

void quantize_int8(const Source& x, const Int8Quantization& how, const Int8BlockOutput& out,
                   std::span<std::byte> scratch, int threads) {
  const int64_t cols = how.prologue == Prologue::swiglu ? x.cols / 2 : x.cols;
  assert(how.prologue != Prologue::swiglu || x.cols % 2 == 0);
  assert(how.rotation == 0 || (is_convrot_group(how.rotation) && cols % how.rotation == 0));
  threads = gemm_threads(threads);
  const size_t needed = quantize_int8_scratch_bytes(x.rows, cols, threads);
  if (scratch.size() < needed)
    throw Error({.name = "scratch-too-small",
                 .problem = "quantizing activations needs more scratch",
                 .expected = std::to_string(needed) + " bytes",
                 .found = std::to_string(scratch.size()),
                 .advice = "Ask quantize_int8_scratch_bytes with the same shape and threads."});
  const auto misaligned = reinterpret_cast<uintptr_t>(scratch.data()) % 4;
  auto* values = reinterpret_cast<float*>(scratch.data() + (misaligned != 0 ? 4 - misaligned : 0));
  float* amax = values + threads * cols;

  const int64_t tasks = (x.rows + kTaskRows - 1) / kTaskRows;
  const Level level = with_isa([]<Isa I> { return &quantize_int8_rows<I>; });
  const auto run = [&](const float* tensor_scale) {
    parallel_tasks(threads, tasks, [&](int64_t task, int thread) {
      const int64_t row0 = task * kTaskRows;
      level(x, how, out, row0, std::min(kTaskRows, x.rows - row0), tensor_scale, amax + task, values + thread * cols);
    });
  };
  run(nullptr);
  if (how.scaling != Int8Scaling::tensor || how.given_scale != nullptr) return;
  const float largest = tasks == 0 ? 0.0f : *std::max_element(amax, amax + tasks);
  out.scales[0] = std::max(largest / how.range.largest, how.range.smallest_scale);
  run(out.scales);
}

}  // namespace mezzotint::kernel
