#include "mezzotint/kernel/hadamard.h"

#include "mezzotint/kernel/isa_file.h"

// Vectors as the compiler knows them: additions, sign flips and shuffles need no intrinsics, and one source serves
// every width. A radix-4 step takes (a, b, c, d) to s = a + b, t = a - b, u = c + d, v = c - d, and these to its
// outputs; the strides come in the order 1, 4, 16, ..., whichever of them are done in one sweep.
namespace mezzotint::kernel {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kRegisters = 16;
#else
constexpr int kWidth = 4, kRegisters = 16;
#endif
typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef uint32_t Signs __attribute__((vector_size(4 * kWidth)));

/// Which element of four each of four takes, and whether it is negated.
struct Quad {
  int from[4];
  bool negative[4];
};
constexpr Quad kPartner{{1, 0, 3, 2}, {}}, kDifference{{0, 1, 2, 3}, {false, true, false, true}};

/// (s, t, u, v) -> (s + v, s - v, t + u, u - t): H4 of ConvRot.
struct Convrot {
  static constexpr Quad kLeft{{0, 0, 2, 2}, {}}, kRight{{3, 3, 1, 1}, {false, true, false, true}};
  template <class T>
  [[gnu::always_inline]] static void step(T& a, T& b, T& c, T& d) {
    const T s = a + b, t = a - b, u = c + d, v = c - d;
    a = s + v;
    b = s - v;
    c = t + u;
    d = u - t;
  }
};

/// (s, t, u, v) -> (s + u, t + v, s - u, t - v): two steps of Sylvester's matrix.
struct Sylvester {
  static constexpr Quad kLeft{{0, 1, 0, 1}, {}}, kRight{{2, 3, 2, 3}, {false, false, true, true}};
  template <class T>
  [[gnu::always_inline]] static void step(T& a, T& b, T& c, T& d) {
    const T s = a + b, t = a - b, u = c + d, v = c - d;
    a = s + u;
    b = t + v;
    c = s - u;
    d = t - v;
  }
};

[[gnu::always_inline]] inline Vector load(const float* x) {
  Vector v;
  __builtin_memcpy(&v, x, sizeof v);
  return v;
}
[[gnu::always_inline]] inline void store(float* x, Vector v) {
  __builtin_memcpy(x, &v, sizeof v);
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
  using Type = Indices<I...>;
};
using Lanes = CountTo<kWidth>::Type;

/// Element i of the result: element kQuad.from of the four that it belongs to, negated where kQuad says so. The four
/// lie `kStride` elements apart (1 or 4).
template <const Quad& kQuad, int kStride, int... I>
[[gnu::always_inline]] inline Vector pick(Vector x, Indices<I...>) {
  constexpr Signs kSigns = {(kQuad.negative[I / kStride % 4] ? 0x80000000u : 0u)...};
  const Vector moved = __builtin_shufflevector(
      x, x, (I / (4 * kStride) * 4 * kStride + kQuad.from[I / kStride % 4] * kStride + I % kStride)...);
  constexpr bool kFlip = kQuad.negative[0] || kQuad.negative[1] || kQuad.negative[2] || kQuad.negative[3];
  return kFlip ? reinterpret_cast<Vector>(reinterpret_cast<Signs>(moved) ^ kSigns) : moved;
}

/// A radix-4 step within a vector.
template <class Kind, int kStride>
[[gnu::always_inline]] inline Vector step_inside(Vector x) {
  x = pick<kPartner, kStride>(x, Lanes{}) + pick<kDifference, kStride>(x, Lanes{});
  return pick<Kind::kLeft, kStride>(x, Lanes{}) + pick<Kind::kRight, kStride>(x, Lanes{});
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/// Stride 4 over two vectors of 8: (a, b), (c, d) in halves.
template <class Kind>
[[gnu::always_inline]] inline void step_halves(Vector& low, Vector& high) {
  Vector a = __builtin_shufflevector(low, high, 0, 1, 2, 3, 8, 9, 10, 11);    // a c
  Vector b = __builtin_shufflevector(low, high, 4, 5, 6, 7, 12, 13, 14, 15);  // b d
  const Vector su = a + b, tv = a - b;
  const Vector st = __builtin_shufflevector(su, tv, 0, 1, 2, 3, 8, 9, 10, 11);
  const Vector uv = __builtin_shufflevector(su, tv, 4, 5, 6, 7, 12, 13, 14, 15);
  if constexpr (Kind::kLeft.from[1] == 1) {
    low = st + uv;
    high = st - uv;
  } else {
    a = __builtin_shufflevector(su, su, 0, 1, 2, 3, 4, 5, 6, 7);  // s u
    b = __builtin_shufflevector(tv, tv, 4, 5, 6, 7, 0, 1, 2, 3);  // v t
    const Vector sum = a + b, difference = a - b;
    low = __builtin_shufflevector(sum, difference, 0, 1, 2, 3, 8, 9, 10, 11);     // s + v, s - v
    high = __builtin_shufflevector(sum, difference, 4, 5, 6, 7, 12, 13, 14, 15);  // u + t, u - t
  }
}
#endif

/// Strides 1 and 4 (only 1 if kSize is 4), then 16 and 64 as far as kSize reaches, over `kSize` consecutive floats.
template <class Kind, int kSize>
[[gnu::always_inline]] inline void fused(float* x, float scale) {
  constexpr int kVectors = (kSize < 16 ? kWidth : kSize) / kWidth;
  Vector v[kVectors];
  for (int i = 0; i < kVectors; ++i) v[i] = step_inside<Kind, 1>(load(x + i * kWidth) * scale);
  if constexpr (kSize >= 16) {
#if defined(__AVX512F__)
    for (int i = 0; i < kVectors; ++i) v[i] = step_inside<Kind, 4>(v[i]);
#elif defined(__AVX2__)
    for (int i = 0; i < kVectors; i += 2) step_halves<Kind>(v[i], v[i + 1]);
#else
    for (int i = 0; i < kVectors; i += 4) Kind::step(v[i], v[i + 1], v[i + 2], v[i + 3]);
#endif
  }
  for (int stride = 16 / kWidth; stride * 4 <= kVectors; stride *= 4)
    for (int i = 0; i < kVectors; i += 4 * stride)
      for (int j = i; j < i + stride; ++j) Kind::step(v[j], v[j + stride], v[j + 2 * stride], v[j + 3 * stride]);
  for (int i = 0; i < kVectors; ++i) store(x + i * kWidth, v[i]);
}

/// kRadix values `stride` floats apart: radix-4 steps at `stride` and, for 16, at 4 * stride; for 2 a last half step.
template <class Kind, int kRadix, class T>
[[gnu::always_inline]] inline void steps(T* v) {
  if constexpr (kRadix == 2) {
    const T a = v[0], b = v[1];
    v[0] = a + b;
    v[1] = a - b;
  } else {
    for (int i = 0; i < kRadix; i += 4) Kind::step(v[i], v[i + 1], v[i + 2], v[i + 3]);
    if constexpr (kRadix == 16)
      for (int i = 0; i < 4; ++i) Kind::step(v[i], v[i + 4], v[i + 8], v[i + 12]);
  }
}

template <class Kind, int kRadix>
[[gnu::noinline]] void strided(float* x, int64_t stride, float scale) {
  int64_t j = 0;
  for (; j + kWidth <= stride; j += kWidth) {
    Vector v[kRadix];
    for (int i = 0; i < kRadix; ++i) v[i] = load(x + i * stride + j) * scale;
    steps<Kind, kRadix>(v);
    for (int i = 0; i < kRadix; ++i) store(x + i * stride + j, v[i]);
  }
  for (; j < stride; ++j) {
    float v[kRadix];
    for (int i = 0; i < kRadix; ++i) v[i] = x[i * stride + j] * scale;
    steps<Kind, kRadix>(v);
    for (int i = 0; i < kRadix; ++i) x[i * stride + j] = v[i];
  }
}

/// The remaining steps of one group of `size` floats, from `stride` on; the first sweep scales.
template <class Kind>
void sweep(float* x, int64_t size, int64_t stride, float scale) {
  while (stride < size) {
    const int64_t radix = size / stride >= 16 && kRegisters == 32 ? 16 : size / stride >= 4 ? 4 : 2;
    for (int64_t i = 0; i < size; i += radix * stride) {
      if (radix == 16) strided<Kind, 16>(x + i, stride, scale);
      if (radix == 4) strided<Kind, 4>(x + i, stride, scale);
      if (radix == 2) strided<Kind, 2>(x + i, stride, scale);
    }
    stride *= radix;
    scale = 1.0f;
  }
}

template <class Kind, int kSize>
[[gnu::noinline]] void fused_groups(float* x, int64_t count, int64_t group, float scale) {
  for (int64_t first = 0; first < count; first += group) {
    for (int64_t i = 0; i < group; i += kSize) fused<Kind, kSize>(x + first + i, scale);
    if (group > kSize) sweep<Kind>(x + first, group, kSize, 1.0f);
  }
}

template <class Kind>
void rotate(float* x, int64_t count, int64_t group, float scale) {
  if (group >= 64) return fused_groups<Kind, 64>(x, count, group, scale);
  if (group >= 16) return fused_groups<Kind, 16>(x, count, group, scale);
  if (group == 4) {
    const int64_t whole = count / kWidth * kWidth;
    for (int64_t i = 0; i < whole; i += kWidth) fused<Kind, 4>(x + i, scale);
    x += whole;
    count -= whole;
  }
  for (int64_t i = 0; i < count; i += group) sweep<Kind>(x + i, group, 1, scale);
}

/// 1 / sqrt(n) of a power of two.
float inverse_root(int64_t n) {
  float scale = 1.0f;
  for (; n >= 4; n /= 4) scale *= 0.5f;
  return n == 2 ? scale * 0x1.6A09E6p-1f : scale;
}

}  // namespace

template <>
void rotate_convrot<kIsa>(float* values, int64_t count, int64_t group) {
  rotate<Convrot>(values, count, group, inverse_root(group));
}

template <>
void rotate_sylvester<kIsa>(float* values, int64_t count, int64_t group, int64_t inner) {
  if (inner == 1) return rotate<Sylvester>(values, count, group, inverse_root(group));
  for (int64_t i = 0; i < count; i += group * inner)
    sweep<Sylvester>(values + i, group * inner, inner, inverse_root(group));
}

}  // namespace mezzotint::kernel
