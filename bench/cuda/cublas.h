#pragma once
#include <cstdint>
#include <string>

/// cuBLAS, for comparison, where the machine has it: opened at run time, so that nothing here needs it.
namespace mezzotint::bench {

class Cublas {
 public:
  Cublas();
  ~Cublas();
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;

  bool here() const { return handle_ != nullptr; }
  /// The library that was found, or why there is none.
  const std::string& what() const { return what_; }

  /// y[m, n] = x[m, k] * w[n, k]^T, all row-major in device memory; int8 with an int32 result, or bf16 with a bf16 one.
  /// Returns whether cuBLAS took it.
  bool int8(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y) const;
  bool bf16(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y) const;

 private:
  bool product(int64_t m, int64_t n, int64_t k, const void* x, const void* w, void* y, int in, int out, int compute,
               const void* one, const void* zero) const;

  void* library_ = nullptr;
  void* handle_ = nullptr;
  void* gemm_ = nullptr;
  std::string what_;
};

}  // namespace mezzotint::bench
