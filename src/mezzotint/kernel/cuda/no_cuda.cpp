// In the library in place of the .cu files where it is built without CUDA (cmake/Cuda.cmake chooses).
#include "mezzotint/base/error.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"
#include "mezzotint/kernel/cuda/groups.h"
#include "mezzotint/kernel/cuda/rotate.h"

namespace mezzotint::kernel::cuda {
namespace {

[[noreturn]] void absent() {
  throw Error({.name = "cuda-not-built",
               .problem = "this library was built without CUDA",
               .advice = "Build with `make cuda` (nvcc is needed), or use the CPU."});
}

}  // namespace

bool built() {
  return false;
}
bool available() {
  return false;
}
std::vector<Device> devices() {
  return {};
}
std::string architectures() {
  return "";
}
void use_device(int) {
  absent();
}
void synchronize(Stream) {
  absent();
}
void* allocate(uint64_t) {
  absent();
}
void release(void*) noexcept {}
void copy_to_device(void*, const void*, uint64_t) {
  absent();
}
void copy_to_host(void*, const void*, uint64_t) {
  absent();
}
void copy_on_device(void*, const void*, uint64_t, Stream) {
  absent();
}
float elapsed_ms(void (*)(void*), void*) {
  absent();
}

void amax_blocks(const Source&, int64_t, int64_t, float*, int64_t, uint32_t*, Stream) {
  absent();
}
void scales_from_amax(float*, float*, int64_t, ScaleRule, float, float, Stream) {
  absent();
}
void encode_fp8(const Source&, const Scales&, DType, uint8_t*, int64_t, const Rounding&, const ElementIndex&, Stream) {
  absent();
}
void encode_int8(const Source&, const Scales&, int, int8_t*, int64_t, const Rounding&, const ElementIndex&, Stream) {
  absent();
}
void encode_int4(const Source&, const Scales&, uint8_t*, int64_t, const Rounding&, const ElementIndex&, Stream) {
  absent();
}
void decode(const uint8_t*, DType, int64_t, int64_t, int64_t, const Scales&, void*, DType, int64_t, Stream) {
  absent();
}
void decode_int4(const uint8_t*, int64_t, int64_t, int64_t, const Scales&, void*, DType, int64_t, Stream) {
  absent();
}
void decode_codebook(const Codebook&, const uint8_t*, void*, DType, int64_t, Stream) {
  absent();
}
void encode_codebook(const Codebook&, const float*, int64_t, uint8_t*, const Rounding&, const ElementIndex&, Stream) {
  absent();
}
void quantize_groups(Group, const Source&, const float*, float, uint8_t*, void*, const Rounding&, const ElementIndex&,
                     Stream) {
  absent();
}
void dequantize_groups(Group, const uint8_t*, const uint8_t*, const float*, int64_t, int64_t, void*, DType, int64_t,
                       Stream) {
  absent();
}
void rotate_convrot(const Source&, int64_t, void*, DType, int64_t, Stream) {
  absent();
}
void gemm_int8_blockwise(const Int8Gemm&, const float*, const float*, Stream) {
  absent();
}
void gemm_int8_rowwise(const Int8Gemm&, const float*, const float*, int64_t, Stream) {
  absent();
}
void transpose_codes(const void*, int64_t, int64_t, int64_t, void*, int64_t, Stream) {
  absent();
}
void transpose_floats(const float*, int64_t, int64_t, float*, Stream) {
  absent();
}

}  // namespace mezzotint::kernel::cuda
