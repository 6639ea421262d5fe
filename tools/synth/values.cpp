#include "synth/values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "mezzotint/base/bf16.h"
#include "mezzotint/base/error.h"
#include "mezzotint/base/fp16.h"

namespace mezzotint::synth {
namespace {

constexpr float kStd = 0.02f;
constexpr float kRowSigma = 0.3f;
constexpr float kLowRank = 0.25f;  // of kStd, for each of two terms times 1/sqrt(2)
constexpr uint64_t kOutlierOneIn = 1024;

// ---- random numbers: a hash of (stream, counter) -------------------------------------------------------------------

uint64_t mix(uint64_t x) {  // the finalizer of splitmix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t at(uint64_t stream, uint64_t counter) {
  return mix(stream + counter * 0x9e3779b97f4a7c15u);
}

/// One stream per purpose, so that the elements' counters never meet the rows'.
struct Streams {
  uint64_t element, row, column;

  Streams(std::string_view name, uint64_t seed) {
    uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
    for (const unsigned char c : name) h = (h ^ c) * 0x100000001b3u;
    h = mix(h ^ mix(seed));
    element = mix(h + 1);
    row = mix(h + 2);
    column = mix(h + 3);
  }
};

// ---- distributions: quantile tables, indexed by random bits
// ----------------------------------------------------------

template <class F>
double solve(double low, double high, F f) {  // f rises; the root of f
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (f(middle) < 0 ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

constexpr unsigned kNormalBits = 12, kTailBits = 10;

struct Tables {
  std::array<float, 1u << kNormalBits> normal;
  std::array<float, 1u << kTailBits> tail;  // sqrt(6 / chi2 with 6 degrees of freedom); normal * tail is t with 6

  Tables() {
    for (size_t i = 0; i < normal.size(); ++i) {
      const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(normal.size());
      normal[i] = static_cast<float>(solve(-8, 8, [&](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)) - p; }));
    }
    for (size_t i = 0; i < tail.size(); ++i) {
      const double p = (static_cast<double>(i) + 0.5) / static_cast<double>(tail.size());
      const double chi2 = solve(0, 100, [&](double x) { return 1 - std::exp(-x / 2) * (1 + x / 2 + x * x / 8) - p; });
      tail[i] = static_cast<float>(std::sqrt(6 / chi2));
    }
  }

  float normal_of(uint64_t bits) const { return normal[bits & (normal.size() - 1)]; }
  float student_of(uint64_t bits) const { return normal_of(bits) * tail[bits >> kNormalBits & (tail.size() - 1)]; }
};

const Tables& tables() {
  static const Tables t;
  return t;
}

// ---- storing
// -----------------------------------------------------------------------------------------------------------

void store_f32(const float* in, size_t n, std::byte* out) {
  std::memcpy(out, in, n * sizeof(float));
}

template <class Format>
void store_half(const float* in, size_t n, std::byte* out) {
  for (size_t i = 0; i < n; ++i) {
    const auto code = static_cast<uint16_t>(Format::encode(in[i]));
    std::memcpy(out + 2 * i, &code, 2);
  }
}

using Store = void (*)(const float*, size_t, std::byte*);

Store store_for(const io::TensorSpec& tensor) {
  switch (tensor.dtype) {
    case DType::f32:
      return store_f32;
    case DType::f16:
      return store_half<Fp16>;
    case DType::bf16:
      return store_half<Bf16>;
    default:
      throw Error({.name = "synth-dtype",
                   .problem = "no values for this dtype",
                   .tensor = tensor.name,
                   .expected = "F32, F16, BF16, I64, I8 or U8",
                   .found = std::string(name(tensor.dtype))});
  }
}

// ---- tensors
// -----------------------------------------------------------------------------------------------------------

constexpr size_t kPiece = 2048;  // elements that are made, then narrowed, while they are in the first-level cache

void fill_vector(const io::TensorSpec& tensor, const Streams& streams, uint64_t first, uint64_t count, std::byte* out) {
  const Store store = store_for(tensor);
  const size_t width = facts(tensor.dtype).bits / 8;
  const float mean = is_norm_vector(tensor.name, tensor.shape.size()) ? 1.0f : 0.0f;
  const float deviation = mean != 0 ? 0.05f : 0.02f;
  std::array<float, kPiece> piece;
  for (uint64_t done = 0; done < count;) {
    const size_t n = std::min<uint64_t>(kPiece, count - done);
    for (size_t i = 0; i < n; ++i)
      piece[i] = mean + deviation * tables().normal_of(at(streams.element, first + done + i));
    store(piece.data(), n, out + done * width);
    done += n;
  }
}

/// The factors of the columns: `scale` of the Student part and two terms of the low-rank part.
struct Columns {
  std::vector<float> scale, v0, v1;

  Columns(const Streams& streams, uint64_t first, uint64_t count) : scale(count), v0(count), v1(count) {
    const float low_rank = kLowRank * kStd * std::sqrt(0.5f);
    for (uint64_t j = 0; j < count; ++j) {
      const uint64_t h = at(streams.column, first + j);
      v0[j] = low_rank * tables().normal_of(h);
      v1[j] = low_rank * tables().normal_of(h >> 12);
      scale[j] = kStd * std::sqrt(2.0f / 3);  // t with 6 degrees of freedom has variance 3/2
      if ((h >> 24) % kOutlierOneIn == 0) scale[j] *= 3 + 5 * static_cast<float>(h >> 40) * 0x1p-24f;
    }
  }
};

/// Student values of elements [first, first + count), count even, first even: two from each hash.
void student(uint64_t stream, uint64_t first, size_t count, float* out) {
  const Tables& t = tables();
  for (size_t i = 0; i < count; i += 2) {
    const uint64_t h = at(stream, (first + i) / 2);
    out[i] = t.student_of(h);
    out[i + 1] = t.student_of(h >> 32);
  }
}

void fill_matrix(const io::TensorSpec& tensor, const Streams& streams, uint64_t first, uint64_t count, std::byte* out) {
  const Store store = store_for(tensor);
  const size_t width = facts(tensor.dtype).bits / 8;
  uint64_t cols = 1;
  for (size_t d = 1; d < tensor.shape.size(); ++d) cols *= static_cast<uint64_t>(tensor.shape[d]);

  // Only the columns that are needed where the range lies inside one row.
  const bool one_row = first / cols == (first + count - 1) / cols;
  const uint64_t first_col = one_row ? first % cols : 0;
  const Columns columns(streams, first_col, one_row ? count : cols);

  std::array<float, kPiece + 2> piece;
  for (uint64_t done = 0; done < count;) {
    const uint64_t index = first + done, row = index / cols, col = index % cols;
    const size_t n = std::min({uint64_t{kPiece}, count - done, cols - col});
    const uint64_t even = index & ~uint64_t{1};
    const size_t lead = index - even;
    student(streams.element, even, (lead + n + 1) & ~size_t{1}, piece.data());

    const uint64_t h = at(streams.row, row);
    const float row_scale = std::exp(kRowSigma * tables().normal_of(h));
    const float u0 = tables().normal_of(h >> 12) * row_scale, u1 = tables().normal_of(h >> 24) * row_scale;
    float* x = piece.data() + lead;
    const float* scale = columns.scale.data() + (col - first_col);
    const float* v0 = columns.v0.data() + (col - first_col);
    const float* v1 = columns.v1.data() + (col - first_col);
    for (size_t j = 0; j < n; ++j) x[j] = x[j] * (scale[j] * row_scale) + (u0 * v0[j] + u1 * v1[j]);
    store(x, n, out + done * width);
    done += n;
  }
}

void fill_positions(const io::TensorSpec& tensor, uint64_t first, uint64_t count, std::byte* out) {
  const uint64_t last = tensor.shape.empty() ? 1 : static_cast<uint64_t>(tensor.shape.back());
  for (uint64_t i = 0; i < count; ++i) {
    const auto value = static_cast<int64_t>((first + i) % last);
    std::memcpy(out + 8 * i, &value, 8);
  }
}

void fill_bytes(const Streams& streams, uint64_t first, uint64_t count, std::byte* out) {
  for (uint64_t i = 0; i < count; ++i) out[i] = static_cast<std::byte>(at(streams.element, first + i) & 0xff);
}

}  // namespace

bool is_norm_vector(std::string_view name, size_t rank) {
  return rank == 1 && (name.ends_with("weight") || name.ends_with("scale"));
}

void fill(const io::TensorSpec& tensor, uint64_t seed, uint64_t first, uint64_t count, std::byte* out) {
  if (count == 0) return;
  const Streams streams(tensor.name, seed);
  if (tensor.dtype == DType::i64) return fill_positions(tensor, first, count, out);
  if (tensor.dtype == DType::u8 || tensor.dtype == DType::i8) return fill_bytes(streams, first, count, out);
  if (tensor.shape.size() >= 2) return fill_matrix(tensor, streams, first, count, out);
  fill_vector(tensor, streams, first, count, out);
}

}  // namespace mezzotint::synth
