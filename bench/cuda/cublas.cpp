#include "cuda/cublas.h"

#include <dlfcn.h>

namespace mezzotint::bench {
namespace {

// Values of cublas_api.h and library_types.h, which are part of cuBLAS' binary interface.
constexpr int kNoTranspose = 0, kTranspose = 1;
constexpr int kInt8 = 3, kInt32 = 10, kBf16 = 14;
constexpr int kCompute32F = 68, kCompute32I = 72;
constexpr int kDefaultAlgorithm = -1;

using Create = int (*)(void**);
using Destroy = int (*)(void*);
using Gemm = int (*)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha,
                     const void* a, int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c,
                     int c_type, int ldc, int compute, int algorithm);

}  // namespace

Cublas::Cublas() {
  for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"}) {
    library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) continue;
    const auto create = reinterpret_cast<Create>(dlsym(library_, "cublasCreate_v2"));
    gemm_ = dlsym(library_, "cublasGemmEx");
    if (create != nullptr && gemm_ != nullptr && create(&handle_) == 0) {
      what_ = name;
      return;
    }
    handle_ = nullptr;
  }
  what_ = "cuBLAS is not on the library path: no comparison";
}

Cublas::~Cublas() {
  if (handle_ != nullptr) reinterpret_cast<Destroy>(dlsym(library_, "cublasDestroy_v2"))(handle_);
  if (library_ != nullptr) dlclose(library_);
}

// cuBLAS is column-major: y^T [n, m] = w [n, k] * x^T, with w as a transposed [k, n].
bool Cublas::product(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y, int in, int out,
                     int compute, const void* one, const void* zero) const {
  if (!here()) return false;
  return reinterpret_cast<Gemm>(gemm_)(handle_, kTranspose, kNoTranspose, static_cast<int>(n), static_cast<int>(m),
                                       static_cast<int>(k), one, w, in, static_cast<int>(k), x, in, static_cast<int>(k),
                                       zero, y, out, static_cast<int>(n), compute, kDefaultAlgorithm) == 0;
}

bool Cublas::int8(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y) const {
  const int32_t one = 1, zero = 0;
  return product(m, n, k, x, w, y, kInt8, kInt32, kCompute32I, &one, &zero);
}

bool Cublas::bf16(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y) const {
  const float one = 1, zero = 0;
  return product(m, n, k, x, w, y, kBf16, kBf16, kCompute32F, &one, &zero);
}

}  // namespace mezzotint::bench
