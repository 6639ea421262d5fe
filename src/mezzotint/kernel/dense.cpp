#include "mezzotint/kernel/dense.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <mutex>
#include <string_view>
#include <vector>

// The Fortran interface: the one that every build of BLAS and LAPACK has.
extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*, const float*, const int*,
            const float*, const int*, const float*, float*, const int*);
void ssyrk_(const char*, const char*, const int*, const int*, const float*, const float*, const int*, const float*,
            float*, const int*);
void strsm_(const char*, const char*, const char*, const char*, const int*, const int*, const float*, const float*,
            const int*, float*, const int*);
void spotrf_(const char*, const int*, float*, const int*, int*);
void sgelqf_(const int*, const int*, float*, const int*, float*, float*, const int*, int*);
void sorglq_(const int*, const int*, const int*, float*, const int*, const float*, float*, const int*, int*);
void ssyev_(const char*, const char*, const int*, float*, const int*, float*, float*, const int*, int*);
void dgetrf_(const int*, const int*, double*, const int*, int*, int*);
void dgetri_(const int*, double*, const int*, const int*, double*, const int*, int*);
char* openblas_get_corename();
char* openblas_get_config();
void* __real_blas_memory_alloc(int);
void __real_blas_memory_free(void*);
}

// The serial OpenBLAS hands out its work buffers without a lock (driver/others/memory.c: only SMP and USE_LOCKING
// builds have one), so two threads can be given the same. The linker puts these in their place (cmake/OpenBlas.cmake).
namespace {
std::mutex work_buffers;
}
extern "C" void* __wrap_blas_memory_alloc(int position) {
  const std::lock_guard lock(work_buffers);
  return __real_blas_memory_alloc(position);
}
extern "C" void __wrap_blas_memory_free(void* buffer) {
  const std::lock_guard lock(work_buffers);
  __real_blas_memory_free(buffer);
}

namespace mezzotint::dense {
namespace {

int narrow(int64_t n) {
  assert(n >= 0 && n <= std::numeric_limits<int>::max());
  return static_cast<int>(n);
}
const char* letter(Transposed t) {
  return t == Transposed::yes ? "T" : "N";
}

// The transpose of B is what is solved for.
void divide(const char* transposed, int64_t m, int64_t n, const float* l, int64_t l_stride, float* b,
            int64_t b_stride) {
  if (m == 0 || n == 0) return;
  const int rows = narrow(n), cols = narrow(m), lda = narrow(l_stride), ldb = narrow(b_stride);
  constexpr float kOne = 1.0f;
  strsm_("L", "U", transposed, "N", &rows, &cols, &kOne, l, &lda, b, &ldb);
}

}  // namespace

// A row-major matrix is the transpose of the column-major one in the same memory.
void multiply(Transposed a_transposed, Transposed b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
              const float* a, int64_t a_stride, const float* b, int64_t b_stride, float beta, float* c,
              int64_t c_stride) {
  if (m == 0 || n == 0) return;
  const int rows = narrow(n), cols = narrow(m), depth = narrow(k);
  const int lda = narrow(b_stride), ldb = narrow(a_stride), ldc = narrow(c_stride);
  sgemm_(letter(b_transposed), letter(a_transposed), &rows, &cols, &depth, &alpha, b, &lda, a, &ldb, &beta, c, &ldc);
}

void add_gram(int64_t n, int64_t k, const float* a, int64_t a_stride, float* c, int64_t c_stride) {
  if (n == 0) return;
  const int order = narrow(n), depth = narrow(k), lda = narrow(a_stride), ldc = narrow(c_stride);
  constexpr float kOne = 1.0f;
  ssyrk_("U", "N", &order, &depth, &kOne, a, &lda, &kOne, c, &ldc);
}

bool factor_cholesky(int64_t n, float* a, int64_t stride) {
  const int order = narrow(n), lda = narrow(stride);
  int info = 0;
  spotrf_("U", &order, a, &lda, &info);
  return info == 0;
}

void solve_right(int64_t m, int64_t n, const float* l, int64_t l_stride, float* b, int64_t b_stride) {
  divide("T", m, n, l, l_stride, b, b_stride);
}

void divide_right(int64_t m, int64_t n, const float* l, int64_t l_stride, float* b, int64_t b_stride) {
  divide("N", m, n, l, l_stride, b, b_stride);
}

void orthonormalize(int64_t m, int64_t n, float* a, int64_t stride) {
  assert(n <= m);
  if (n == 0) return;
  const int rows = narrow(n), cols = narrow(m), lda = narrow(stride);
  std::vector<float> tau(static_cast<size_t>(n));
  float wanted = 0;
  int query = -1, info = 0;
  sgelqf_(&rows, &cols, a, &lda, tau.data(), &wanted, &query, &info);
  std::vector<float> work(static_cast<size_t>(std::max(wanted, static_cast<float>(64 * n))));
  const int size = narrow(static_cast<int64_t>(work.size()));
  sgelqf_(&rows, &cols, a, &lda, tau.data(), work.data(), &size, &info);
  sorglq_(&rows, &cols, &rows, a, &lda, tau.data(), work.data(), &size, &info);
}

bool eigenvectors(int64_t n, float* a, int64_t stride, float* values) {
  if (n == 0) return true;
  const int order = narrow(n), lda = narrow(stride);
  std::vector<float> work(static_cast<size_t>(std::max<int64_t>(66 * n, 1)));
  const int size = narrow(static_cast<int64_t>(work.size()));
  int info = 0;
  ssyev_("V", "U", &order, a, &lda, values, work.data(), &size, &info);
  return info == 0;
}

// The inverse of the transpose is the transpose of the inverse.
bool invert(int64_t n, double* a) {
  if (n == 0) return true;
  const int order = narrow(n), size = narrow(64 * n);
  std::vector<int> pivots(static_cast<size_t>(n));
  int info = 0;
  dgetrf_(&order, &order, a, &order, pivots.data(), &info);
  if (info != 0) return false;
  std::vector<double> work(static_cast<size_t>(size));
  dgetri_(&order, a, &order, pivots.data(), work.data(), &size, &info);
  return info == 0;
}

std::string blas_name() {
  const std::string_view config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE ..."
  const size_t end = config.find(' ', config.find(' ') + 1);
  return std::string(config.substr(0, end)) + " " + openblas_get_corename();
}

}  // namespace mezzotint::dense
