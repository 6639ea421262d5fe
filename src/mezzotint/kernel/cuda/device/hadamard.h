#pragma once
#include "mezzotint/kernel/cuda/device/elements.h"

/// ConvRot's rotation (kernel/hadamard.h): the same additions in the same order, so the same bits.
namespace mezzotint::kernel::cuda::device {

struct RotateArgs {
  const void* x;  ///< [rows, cols] of the element type; may be `out` itself if that is float32
  uint32_t rows, cols;
  int64_t stride;
  void* out;
  int64_t out_stride;
  uint32_t group;  ///< a power of 4, at most 4096, that divides cols
  float scale;     ///< 1 / sqrt(group)
};

/// A block of threads rotates kValues values (one group or several, all of one row where a row has as many) in shared
/// memory, radix 4 at strides 1, 4, 16, ....
template <class Element, class Out>
struct Rotate {
  using Args = RotateArgs;
  static constexpr int kThreads = 256, kMinBlocks = 4;
  static constexpr uint32_t kValues = 4096;
  struct Shared {
    float x[kValues + kValues / 32];  // one gap in 32: strides of a power of two meet different banks
  };
  MEZZOTINT_DEVICE static uint32_t slot(uint32_t i) { return i + i / 32; }

  template <class Machine>
  MEZZOTINT_DEVICE static void run(Machine& m, const Args& a, Shared& shared) {
    const uint64_t total = static_cast<uint64_t>(a.rows) * a.cols;
    const uint64_t first = static_cast<uint64_t>(m.block_x()) * kValues;
    const uint32_t count = static_cast<uint32_t>(total - first < kValues ? total - first : kValues);
    const auto* x = static_cast<const typename Element::Stored*>(a.x);
    // Four consecutive values never cross the end of a row: cols is a multiple of 4.
    const uint32_t row0 = static_cast<uint32_t>(first / a.cols), col0 = static_cast<uint32_t>(first % a.cols);
    for (uint32_t i = 4 * m.thread(); i < count; i += 4 * kThreads) {
      const uint32_t row = row0 + (col0 + i) / a.cols, col = (col0 + i) % a.cols;
      float v[4];
      MEZZOTINT_UNROLL
      for (uint32_t j = 0; j < 4; ++j) v[j] = Element::load(x[row * a.stride + col + j]) * a.scale;
      step(v);
      MEZZOTINT_UNROLL
      for (uint32_t j = 0; j < 4; ++j) shared.x[slot(i + j)] = v[j];
    }
    m.sync();
    for (uint32_t stride = 4; stride < a.group; stride *= 4) {
      for (uint32_t i = m.thread(); i < count / 4; i += kThreads) {
        const uint32_t at = i / stride * stride * 4 + i % stride;
        float v[4];
        MEZZOTINT_UNROLL
        for (uint32_t j = 0; j < 4; ++j) v[j] = shared.x[slot(at + j * stride)];
        step(v);
        MEZZOTINT_UNROLL
        for (uint32_t j = 0; j < 4; ++j) shared.x[slot(at + j * stride)] = v[j];
      }
      m.sync();
    }
    auto* out = static_cast<typename Out::Stored*>(a.out);
    for (uint32_t i = m.thread(); i < count; i += kThreads) {
      const uint32_t row = row0 + (col0 + i) / a.cols, col = (col0 + i) % a.cols;
      out[row * a.out_stride + col] = Out::store(shared.x[slot(i)]);
    }
  }

 private:
  MEZZOTINT_DEVICE static void step(float (&v)[4]) {
    const float s = v[0] + v[1], t = v[0] - v[1], u = v[2] + v[3], w = v[2] - v[3];
    v[0] = s + w;
    v[1] = s - w;
    v[2] = t + u;
    v[3] = u - t;
  }
};

}  // namespace mezzotint::kernel::cuda::device
