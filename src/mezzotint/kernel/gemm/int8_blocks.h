#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "mezzotint/kernel/gemm/int8_gemm.h"
#include "mezzotint/kernel/isa.h"

/// Operations on block-wise int8 data, quantized in and quantized out: no float32 tensor in between. Inputs are
/// activations with a scale per row and 128 codes, or weights with a scale per 128 x 128. Results have scales
/// max(amax / 127, 1e-30) of the exact float32 values and codes rint(value / scale) in [-127, 127], the same at every
/// level and for every number of threads.
namespace mezzotint::kernel {

enum class Gelu : uint8_t {
  tanh,  ///< activation.h
  erf,   ///< gelu_erf.h
};

/// out = gelu(x) for activations x of rows x cols codes, value = code * scale. out may be x itself.
void int8_gelu(const Int8Codes& x, int64_t rows, int64_t cols, const Int8BlockOutput& out, int threads = 1,
               Gelu gelu = Gelu::tanh);

/// out[cols, rows] = x[rows, cols]^T for activations x: scales run along the new rows, so codes are quantized again.
void int8_transpose(const Int8Codes& x, int64_t rows, int64_t cols, const Int8BlockOutput& out, int threads = 1);

/// out[cols, rows] = w[rows, cols]^T for weights w: codes and scales change their places and nothing is rounded.
void int8_transpose_weight(const Int8Codes& w, int64_t rows, int64_t cols, const Int8BlockOutput& out);

// One level: rows [row0, row0 + rows) of x to the same rows, or to columns [row0, row0 + rows) of out; row0 a multiple
// of 128.
template <Isa I>
void int8_gelu_rows(const Int8Codes& x, int64_t row0, int64_t rows, int64_t cols, const Int8BlockOutput& out,
                    Gelu gelu);
template <Isa I>
void int8_transpose_rows(const Int8Codes& x, int64_t row0, int64_t rows, int64_t cols, const Int8BlockOutput& out);

}  // namespace mezzotint::kernel
