#include "mezzotint/kernel/reduce.h"

#include "mezzotint/kernel/isa_elements.h"
#include "mezzotint/kernel/isa_max.h"

namespace mezzotint::kernel {
namespace {

constexpr int64_t kShortRun = 256;  ///< columns up to which a call costs more than it saves

/// Magnitudes as integers are ordered like the values, with inf and NaN on top.
template <class Element>
[[gnu::noinline]] int32_t max_magnitude(const typename Element::Stored* x, int64_t n) {
  using Magnitude = typename Element::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  Magnitude top = 0;
  int64_t i = 0;
#if defined(__AVX512BW__)
  // Lines are asked for further ahead than the hardware does, which stops at the end of a page.
  constexpr int64_t kAhead = 6144, kLanes = 64 / sizeof(Magnitude);
  typedef Magnitude Line __attribute__((vector_size(64)));
  typedef Line LineAnywhere __attribute__((aligned(1), may_alias));
  if (n >= 4 * kLanes) {
    Line tops = Line{};
    for (; i + kLanes <= n; i += kLanes) {
      __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead);
      const Line a = *reinterpret_cast<const LineAnywhere*>(x + i) & kMask;
      tops = a > tops ? a : tops;
    }
    for (int64_t lane = 0; lane < kLanes; ++lane) top = tops[lane] > top ? tops[lane] : top;
  }
#endif
  for (; i < n; ++i) {
    const auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[i]) & kMask);
    top = a > top ? a : top;
  }
  return top;
}

/// The same over finite elements only; rarely needed.
template <class Element>
[[gnu::noinline]] int32_t max_finite_magnitude(const typename Element::Stored* x, int64_t n) {
  using Magnitude = typename Element::Magnitude;
  constexpr auto kMask = static_cast<Magnitude>(sizeof(Magnitude) == 2 ? 0x7FFF : 0x7FFFFFFF);
  Magnitude top = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto a = static_cast<Magnitude>(static_cast<Magnitude>(x[i]) & kMask);
    const auto finite = static_cast<Magnitude>(a < Element::kInf ? a : 0);
    top = finite > top ? finite : top;
  }
  return top;
}

/// Largest finite magnitude of n elements; non_finite is only ever set.
template <class Element>
[[gnu::always_inline]] inline int32_t run(const typename Element::Stored* x, int64_t n, bool& non_finite) {
  int32_t top = 0;
#if defined(MEZZOTINT_MAX_VECTORS)
  if (sizeof(typename Element::Magnitude) == 2 && n > 0 && n <= kShortRun && n % kMaxStep == 0)
    top = top_of_words(reinterpret_cast<const Word*>(x), n);
  else
#endif
    top = max_magnitude<Element>(x, n);
  if (top < Element::kInf) return top;
  non_finite = true;
  return max_finite_magnitude<Element>(x, n);
}

template <class Element>
float value(int32_t magnitude) {
  return Element::load(static_cast<typename Element::Stored>(magnitude));
}

template <class Element>
const typename Element::Stored* row_of(const Source& x, int64_t r) {
  return static_cast<const typename Element::Stored*>(x.data) + r * x.stride;
}

}  // namespace

template <>
Amax amax<kIsa>(const Source& x) {
  Amax result;
  with_element(x.dtype, [&]<class Element> {
    int64_t rows = x.rows, cols = x.cols;
    flatten(rows, cols, x.stride == cols);
    int32_t top = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t row = run<Element>(row_of<Element>(x, r), cols, result.non_finite);
      top = row > top ? row : top;
    }
    result.value = value<Element>(top);
  });
  return result;
}

template <>
bool amax_rows<kIsa>(const Source& x, float* out) {
  bool non_finite = false;
  with_element(x.dtype, [&]<class Element> {
    for (int64_t r = 0; r < x.rows; ++r)
      out[r] = value<Element>(run<Element>(row_of<Element>(x, r), x.cols, non_finite));
  });
  return non_finite;
}

template <>
bool amax_blocks<kIsa>(const Source& x, int64_t block_rows, int64_t block_cols, float* out, int64_t out_stride) {
  bool non_finite = false;
  with_element(x.dtype, [&]<class Element> {
    // Row by row, as memory lies; a block's maximum grows in its place.
    for (int64_t r = 0; r < x.rows; ++r) {
      const bool first = r % block_rows == 0;
      float* block = out + r / block_rows * out_stride;
      for (int64_t c = 0; c < x.cols; c += block_cols, ++block) {
        const int64_t n = smaller(block_cols, x.cols - c);
        const float top = value<Element>(run<Element>(row_of<Element>(x, r) + c, n, non_finite));
        *block = first || top > *block ? top : *block;
      }
    }
  });
  return non_finite;
}

}  // namespace mezzotint::kernel
