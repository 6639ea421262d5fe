#pragma once
#include "mezzotint/kernel/cuda/device/gemm_int8.h"
#include "mezzotint/kernel/cuda/dispatch.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"

namespace mezzotint::kernel::cuda::dispatch {

inline device::GemmArgs gemm_args(const Int8Gemm& g, const float* x_scales, const float* w_scales) {
  assert(g.k > 0 && g.k < (1 << 17));
  const auto packed = [](const void* p, int64_t stride) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride % 16 == 0;
  };
  const int64_t blocks = (g.k + 127) / 128;
  return {.x = g.x,
          .w = g.w,
          .x_stride = g.x_stride,
          .w_stride = g.w_stride,
          .m = static_cast<uint32_t>(g.m),
          .n = static_cast<uint32_t>(g.n),
          .k = static_cast<uint32_t>(g.k),
          .x_scales = x_scales,
          .w_scales = w_scales,
          .x_scale_stride = blocks,
          .w_scale_stride = blocks,
          .w_scale_step = 1,
          .bias = g.bias,
          .y = g.y,
          .y_stride = g.y_stride,
          .packets = packed(g.x, g.x_stride) && packed(g.w, g.w_stride)};
}

template <bool kBlockwise, class Launcher>
void run_gemm(Launcher& launcher, const Int8Gemm& gemm, const device::GemmArgs& args) {
  if (empty(gemm.m, gemm.n)) return;
  with_element(gemm.to, [&]<class Out> {
    using Tall = device::GemmInt8<Out, kBlockwise, 4>;
    using Flat = device::GemmInt8<Out, kBlockwise, 1>;
    if (gemm.m > Flat::kRows) {
      launcher.template run<Tall>(Tall::grid(args), args);
    } else {
      launcher.template run<Flat>(Flat::grid(args), args);
    }
  });
}

template <class Launcher>
void gemm_int8_blockwise(Launcher& launcher, const Int8Gemm& gemm, const float* x_scales, const float* w_scales) {
  run_gemm<true>(launcher, gemm, gemm_args(gemm, x_scales, w_scales));
}

template <class Launcher>
void gemm_int8_rowwise(Launcher& launcher, const Int8Gemm& gemm, const float* x_scales, const float* w_scales,
                       int64_t w_scale_count) {
  assert(w_scale_count == 1 || w_scale_count == gemm.n);
  auto args = gemm_args(gemm, x_scales, w_scales);
  args.w_scale_step = w_scale_count == 1 ? 0 : 1;
  run_gemm<false>(launcher, gemm, args);
}

template <class Stored, class Launcher>
void transpose(Launcher& launcher, const void* x, int64_t rows, int64_t cols, int64_t stride, void* out,
               int64_t out_stride) {
  if (empty(rows, cols)) return;
  using Body = device::Transpose<Stored>;
  const typename Body::Args args{.x = static_cast<const Stored*>(x),
                                 .rows = static_cast<uint32_t>(rows),
                                 .cols = static_cast<uint32_t>(cols),
                                 .stride = stride,
                                 .out = static_cast<Stored*>(out),
                                 .out_stride = out_stride};
  launcher.template run<Body>(Body::grid(args), args);
}

}  // namespace mezzotint::kernel::cuda::dispatch
