#pragma once
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "cuda/emulator.h"
#include "kernel/matrix.h"
#include "mezzotint/kernel/cuda/codec.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/cuda/dispatch.h"
#include "mezzotint/kernel/cuda/dispatch_gemm.h"
#include "mezzotint/kernel/cuda/dispatch_groups.h"
#include "mezzotint/kernel/cuda/dispatch_nibbles.h"
#include "mezzotint/kernel/cuda/dispatch_rotate.h"
#include "mezzotint/kernel/cuda/gemm_int8.h"
#include "mezzotint/kernel/cuda/groups.h"
#include "mezzotint/kernel/cuda/rotate.h"

/// Every test runs on the emulator and on a GPU, where there is one.
namespace mezzotint::kernel::cuda::test {

using kernel::test::Matrix;
using mezzotint::test::test_rng;

/// Calls OPERATION of the backend with the same arguments, less the launcher or the stream.
#define MEZZOTINT_OPERATION(OPERATION)             \
  template <class... A>                            \
  static void OPERATION(const A&... arguments) {   \
    if constexpr (kEmulated) {                     \
      EmulatedLauncher launcher;                   \
      dispatch::OPERATION(launcher, arguments...); \
    } else {                                       \
      cuda::OPERATION(arguments..., Stream{});     \
      synchronize(Stream{});                       \
    }                                              \
  }

template <bool kEmulated>
struct Backend {
  static constexpr const char* kName = kEmulated ? "emulated" : "gpu";
  static bool here() { return kEmulated || available(); }

  MEZZOTINT_OPERATION(amax_blocks)
  MEZZOTINT_OPERATION(scales_from_amax)
  MEZZOTINT_OPERATION(encode_fp8)
  MEZZOTINT_OPERATION(encode_int8)
  MEZZOTINT_OPERATION(encode_int4)
  MEZZOTINT_OPERATION(decode)
  MEZZOTINT_OPERATION(decode_int4)
  MEZZOTINT_OPERATION(decode_codebook)
  MEZZOTINT_OPERATION(encode_codebook)
  MEZZOTINT_OPERATION(quantize_groups)
  MEZZOTINT_OPERATION(dequantize_groups)
  MEZZOTINT_OPERATION(rotate_convrot)
  MEZZOTINT_OPERATION(gemm_int8_blockwise)
  MEZZOTINT_OPERATION(gemm_int8_rowwise)
  static void transpose_codes(const void* x, int64_t rows, int64_t cols, int64_t stride, void* out,
                              int64_t out_stride) {
    if constexpr (kEmulated) {
      EmulatedLauncher launcher;
      dispatch::transpose<uint8_t>(launcher, x, rows, cols, stride, out, out_stride);
    } else {
      cuda::transpose_codes(x, rows, cols, stride, out, out_stride, Stream{});
    }
  }
  static void transpose_floats(const float* x, int64_t rows, int64_t cols, float* out) {
    if constexpr (kEmulated) {
      EmulatedLauncher launcher;
      dispatch::transpose<uint32_t>(launcher, x, rows, cols, cols, out, rows);
    } else {
      cuda::transpose_floats(x, rows, cols, out, Stream{});
    }
  }

  /// Bytes where the backend's kernels see them, between margins that they must leave alone. The address is a multiple
  /// of 256 plus `offset`.
  class Memory {
   public:
    explicit Memory(size_t bytes, size_t offset = 0) : bytes_(bytes), begin_(kMargin + offset) {
      image_.assign(begin_ + bytes + kMargin, kPattern);
      if constexpr (kEmulated) {
        storage_.reset(static_cast<uint8_t*>(::operator new (image_.size(), std::align_val_t{256})));
      } else {
        storage_.reset(static_cast<uint8_t*>(allocate(image_.size())));
      }
      put();
    }
    Memory(const void* data, size_t bytes, size_t offset = 0) : Memory(bytes, offset) {
      if (bytes != 0) std::memcpy(image_.data() + begin_, data, bytes);
      put();
    }
    template <class T>
    explicit Memory(const std::vector<T>& data, size_t offset = 0)
        : Memory(data.data(), data.size() * sizeof(T), offset) {}

    template <class T = uint8_t>
    T* as() {
      return reinterpret_cast<T*>(storage_.get() + begin_);
    }
    /// What lies there now; fails the test if a margin was written to.
    template <class T = uint8_t>
    std::vector<T> read() {
      if constexpr (kEmulated) {
        std::memcpy(image_.data(), storage_.get(), image_.size());
      } else {
        copy_to_host(image_.data(), storage_.get(), image_.size());
      }
      for (size_t i = 0; i < begin_; ++i) touched_ |= image_[i] != kPattern;
      for (size_t i = begin_ + bytes_; i < image_.size(); ++i) touched_ |= image_[i] != kPattern;
      EXPECT_FALSE(touched_) << "a kernel wrote beside its memory";
      std::vector<T> out(bytes_ / sizeof(T));
      if (bytes_ != 0) std::memcpy(out.data(), image_.data() + begin_, out.size() * sizeof(T));
      return out;
    }

   private:
    static constexpr size_t kMargin = 256;
    static constexpr uint8_t kPattern = 0xA5;
    struct Free {
      void operator()(uint8_t* p) const {
        if constexpr (kEmulated) {
          ::operator delete (p, std::align_val_t{256});
        } else {
          release(p);
        }
      }
    };
    void put() {
      if constexpr (kEmulated) {
        std::memcpy(storage_.get(), image_.data(), image_.size());
      } else {
        copy_to_device(storage_.get(), image_.data(), image_.size());
      }
    }
    size_t bytes_, begin_;
    std::vector<uint8_t> image_;
    std::unique_ptr<uint8_t, Free> storage_;
    bool touched_ = false;
  };
};
#undef MEZZOTINT_OPERATION

using Emulated = Backend<true>;
using Gpu = Backend<false>;
using Backends = testing::Types<Emulated, Gpu>;
struct BackendName {
  template <class B>
  static std::string GetName(int) {
    return B::kName;
  }
};

template <class B>
class OnEveryBackend : public testing::Test {
 protected:
  void SetUp() override {
    if (!B::here()) GTEST_SKIP() << "no GPU";
  }
};

/// Matrix (tests/kernel/matrix.h) as a source in the backend's memory.
template <class B>
struct DeviceMatrix {
  typename B::Memory memory;
  Source source;

  DeviceMatrix(Matrix& m, DType dtype, size_t offset = 0)
      : memory(m.data(), static_cast<size_t>(m.rows() * m.stride() * bytes_of(dtype)), offset),
        source{memory.template as<void>(), dtype, m.rows(), m.cols(), m.stride()} {}

 private:
  static int64_t bytes_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }
};

}  // namespace mezzotint::kernel::cuda::test
