#pragma once
#include <cstdint>
#include <string>

/// Dense algebra on row-major matrices, float32 but for what says otherwise, by OpenBLAS: one thread per call, callers
/// split the work. Strides are floats from one row to the next. Results are the same bits on one kind of CPU
/// (blas_name()), whatever the threads.
namespace mezzotint::dense {

enum class Transposed : bool { no, yes };

/// C = alpha op(A) op(B) + beta C, with C [m, n] and k the length of the sums.
void multiply(Transposed a_transposed, Transposed b_transposed, int64_t m, int64_t n, int64_t k, float alpha,
              const float* a, int64_t a_stride, const float* b, int64_t b_stride, float beta, float* c,
              int64_t c_stride);

/// The lower triangle of C += A' A with A [k, n].
void add_gram(int64_t n, int64_t k, const float* a, int64_t a_stride, float* c, int64_t c_stride);

/// The lower triangle of A becomes L with A = L L'; false where A is not positive definite (A is spoilt then).
bool factor_cholesky(int64_t n, float* a, int64_t stride);

/// B = B L'^-1 for B [m, n] and L [n, n] lower triangular.
void solve_right(int64_t m, int64_t n, const float* l, int64_t l_stride, float* b, int64_t b_stride);

/// B = B L^-1 for the same.
void divide_right(int64_t m, int64_t n, const float* l, int64_t l_stride, float* b, int64_t b_stride);

/// The columns of A [m, n], m >= n, become an orthonormal basis of what they span.
void orthonormalize(int64_t m, int64_t n, float* a, int64_t stride);

/// Eigenvalues, ascending, of the symmetric A [n, n], whose rows become the eigenvectors. False if it did not converge.
bool eigenvectors(int64_t n, float* a, int64_t stride, float* values);

/// A [n, n], packed, becomes its inverse; false where A is singular (A is spoilt then).
bool invert(int64_t n, double* a);

/// Version and kernels in use, e.g. "OpenBLAS 0.3.21 SkylakeX".
std::string blas_name();

}  // namespace mezzotint::dense
