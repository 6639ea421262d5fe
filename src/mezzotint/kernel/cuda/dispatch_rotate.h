#pragma once
#include "mezzotint/kernel/cuda/device/hadamard.h"
#include "mezzotint/kernel/cuda/dispatch.h"

namespace mezzotint::kernel::cuda::dispatch {

template <class Launcher>
void rotate_convrot(Launcher& launcher, const Source& x, int64_t group, void* out, DType to, int64_t out_stride) {
  assert(group >= 4 && group <= 4096 && x.cols % group == 0);
  if (empty(x.rows, x.cols)) return;
  float scale = 1.0f;
  for (int64_t n = group; n > 1; n /= 4) {
    assert(n % 4 == 0);
    scale *= 0.5f;
  }
  const device::RotateArgs args{.x = x.data,
                                .rows = static_cast<uint32_t>(x.rows),
                                .cols = static_cast<uint32_t>(x.cols),
                                .stride = x.stride,
                                .out = out,
                                .out_stride = out_stride,
                                .group = static_cast<uint32_t>(group),
                                .scale = scale};
  with_element(x.dtype, [&]<class Element> {
    with_element(to, [&]<class Out> {
      using Body = device::Rotate<Element, Out>;
      const auto blocks = (x.rows * x.cols + Body::kValues - 1) / Body::kValues;
      launcher.template run<Body>({static_cast<uint32_t>(blocks), 1}, args);
    });
  });
}

}  // namespace mezzotint::kernel::cuda::dispatch
