#include "mezzotint/kernel/error_sums.h"

#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {
namespace {

// Eight lanes of each sum at every level, in one, two or four registers.
constexpr int kLanes = 8;
typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef float FloatsAnywhere __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntsAnywhere __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(kLanes * 8)));

// Counts of one bin in a row wait for each other; four tables rarely do.
constexpr int kTables = 4;
// Elements after which the 32-bit counts are emptied.
constexpr int64_t kChunk = 1 << 20;
// Bin of magnitude bits: exponent and first fraction bit, counted from bin 1.
constexpr int32_t kShift = 22;
constexpr int32_t kBinOffset = 2 * (127 + kFirstExponent) - 1;

struct Counts {
  uint32_t values[kTables][kMagnitudeBins];
  uint32_t errors[kTables][kMagnitudeBins];
};

struct Sums {
  Doubles a2, b2, ab, e2;
  Ints max_error, max_a;  ///< bits of the magnitudes, which are ordered like these
  Ints non_finite, zeroed;
};

[[gnu::always_inline]] inline Ints bins_of(const Ints& magnitude) {
  Ints bin = (magnitude >> kShift) - kBinOffset;
  bin = bin < 0 ? Ints{} : bin;
  const Ints last = Ints{} + (kMagnitudeBins - 1);
  return bin > last ? last : bin;
}

// Bins of a few registers, so that counting reads them from memory: taking lanes out of a register costs more.
constexpr int kBlock = 256;
struct Block {
  int32_t values[kBlock];
  int32_t errors[kBlock];
};

void count(const int32_t* bins, int64_t n, uint32_t (&tables)[kTables][kMagnitudeBins]) {
  for (int64_t i = 0; i < n; i += kTables)
    for (int table = 0; table < kTables; ++table) ++tables[table][bins[i + table]];
}

[[gnu::always_inline]] inline void add(Floats a, Floats b, Sums& sums, int32_t* value_bins, int32_t* error_bins) {
  constexpr int32_t kMagnitude = 0x7FFFFFFF, kInf = 0x7F800000;
  Ints bits_a = (Ints)a, bits_b = (Ints)b;
  const Ints bad = ((bits_a & kMagnitude) >= kInf) | ((bits_b & kMagnitude) >= kInf);
  sums.non_finite -= bad;
  bits_a &= ~bad;
  bits_b &= ~bad;
  sums.zeroed -= ((bits_a & kMagnitude) != 0) & ((bits_b & kMagnitude) == 0);
  const Doubles x = __builtin_convertvector((Floats)bits_a, Doubles);
  const Doubles y = __builtin_convertvector((Floats)bits_b, Doubles);
  const Doubles e = y - x;
  sums.a2 += x * x;
  sums.b2 += y * y;
  sums.ab += x * y;
  sums.e2 += e * e;
  const Ints size_x = bits_a & kMagnitude;
  const Ints size_e = (Ints) __builtin_convertvector(e, Floats) & kMagnitude;
  sums.max_a = size_x > sums.max_a ? size_x : sums.max_a;
  sums.max_error = size_e > sums.max_error ? size_e : sums.max_error;
  *reinterpret_cast<IntsAnywhere*>(value_bins) = bins_of(size_x);
  *reinterpret_cast<IntsAnywhere*>(error_bins) = bins_of(size_e);
}

double sum_of(const Doubles& x) {
  return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

double max_of(const Ints& magnitudes) {
  int32_t top = 0;
  for (int i = 0; i < kLanes; ++i) top = magnitudes[i] > top ? magnitudes[i] : top;
  float value;
  __builtin_memcpy(&value, &top, sizeof value);
  return value;
}

uint64_t count_of(const Ints& x) {
  uint64_t count = 0;
  for (int i = 0; i < kLanes; ++i) count += static_cast<uint32_t>(x[i]);
  return count;
}

void add_chunk(const float* a, const float* b, int64_t n, ErrorSums& out) {
  Counts counts;
  __builtin_memset(&counts, 0, sizeof counts);
  Sums sums = {};
  Block bins;
  const auto add_lanes = [&](Floats x, Floats y, int64_t at) __attribute__((always_inline)) {
    add(x, y, sums, bins.values + at, bins.errors + at);
  };
  for (int64_t done = 0; done < n; done += kBlock) {
    const int64_t size = n - done < kBlock ? n - done : kBlock;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes)
      add_lanes(*reinterpret_cast<const FloatsAnywhere*>(a + done + i),
                *reinterpret_cast<const FloatsAnywhere*>(b + done + i), i);
    if (i < size) {  // zeros add nothing but counts in the first bin, which are taken off again
      Floats x = {}, y = {};
      for (int64_t lane = 0; lane < size - i; ++lane) {
        x[lane] = a[done + i + lane];
        y[lane] = b[done + i + lane];
      }
      add_lanes(x, y, i);
      i += kLanes;
    }
    count(bins.values, i, counts.values);
    count(bins.errors, i, counts.errors);
  }
  const uint64_t non_finite = count_of(sums.non_finite);
  out.a2 += sum_of(sums.a2);
  out.b2 += sum_of(sums.b2);
  out.ab += sum_of(sums.ab);
  out.e2 += sum_of(sums.e2);
  const double max_error = max_of(sums.max_error), max_a = max_of(sums.max_a);
  out.max_error = max_error > out.max_error ? max_error : out.max_error;
  out.max_a = max_a > out.max_a ? max_a : out.max_a;
  out.non_finite += non_finite;
  out.zeroed += count_of(sums.zeroed);
  for (int bin = 0; bin < kMagnitudeBins; ++bin)
    for (int table = 0; table < kTables; ++table) {
      out.values[bin] += counts.values[table][bin];
      out.errors[bin] += counts.errors[table][bin];
    }
  // What is not finite, and the padding, was counted as zero.
  const uint64_t not_there = non_finite + static_cast<uint64_t>((kLanes - n % kLanes) % kLanes);
  out.values[0] -= not_there;
  out.errors[0] -= not_there;
}

}  // namespace

template <>
void add_errors<kIsa>(const float* a, const float* b, int64_t n, ErrorSums& sums) {
  for (int64_t done = 0; done < n; done += kChunk)
    add_chunk(a + done, b + done, n - done < kChunk ? n - done : kChunk, sums);
}

}  // namespace mezzotint::kernel
