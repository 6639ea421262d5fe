#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace mezzotint::kernel::test {

/// The interface of HardwareTiles (kernel/gemm/amx_tiles.h) by the instructions' definitions (Intel's manual, volume
/// 2). Using a tile before ldtilecfg faults on the machine; here it ends the program.
class EmulatedTiles {
 public:
  void configure() {
    configured_ = true;
    std::memset(tiles_, 0, sizeof tiles_);
  }
  void release() { configured_ = false; }
  template <int T>
  void zero() {
    std::memset(tile<T>(), 0, sizeof(Tile));
  }
  template <int T>
  void load(const void* from, int64_t stride) {
    for (int r = 0; r < 16; ++r) std::memcpy(tile<T>() + r * 64, static_cast<const uint8_t*>(from) + r * stride, 64);
  }
  template <int T>
  void store(void* to, int64_t stride) {
    for (int r = 0; r < 16; ++r) std::memcpy(static_cast<uint8_t*>(to) + r * stride, tile<T>() + r * 64, 64);
  }
  template <int C, int A, int B>
  void dot_int8() {
    for_each_sum<C, int32_t>([&](int m, int n, int32_t& sum) {
      for (int k = 0; k < 16; ++k)
        for (int i = 0; i < 4; ++i)
          sum +=
              static_cast<int8_t>(tile<A>()[m * 64 + 4 * k + i]) * static_cast<int8_t>(tile<B>()[k * 64 + 4 * n + i]);
    });
  }
  /// Products added one by one; the machine rounds differently within a pair and takes subnormals as zero, so what is
  /// compared with this has a bound.
  template <int C, int A, int B>
  void dot_bf16() {
    for_each_sum<C, float>([&](int m, int n, float& sum) {
      for (int k = 0; k < 16; ++k)
        for (int i = 0; i < 2; ++i) {
          const float product = bf16(tile<A>() + m * 64 + 4 * k + 2 * i) * bf16(tile<B>() + k * 64 + 4 * n + 2 * i);
          sum += product;
        }
    });
  }

 private:
  using Tile = uint8_t[1024];

  template <int T>
  uint8_t* tile() {
    static_assert(T >= 0 && T < 8);
    if (!configured_) {
      std::fputs("tiles are not configured\n", stderr);
      std::abort();
    }
    return tiles_[T];
  }
  /// add(m, n, sum) for every element of tile C, of type T.
  template <int C, class T, class F>
  void for_each_sum(F add) {
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 16; ++n) {
        T sum;
        std::memcpy(&sum, tile<C>() + m * 64 + n * 4, sizeof sum);
        add(m, n, sum);
        std::memcpy(tile<C>() + m * 64 + n * 4, &sum, sizeof sum);
      }
  }
  static float bf16(const uint8_t* p) {
    const uint32_t bits = static_cast<uint32_t>(p[0]) << 16 | static_cast<uint32_t>(p[1]) << 24;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  bool configured_ = false;
  Tile tiles_[8] = {};
};

}  // namespace mezzotint::kernel::test
