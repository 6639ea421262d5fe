#pragma once
#include <cstdint>
#include <vector>

namespace mezzotint::convert {

/// The random rotation of QuIP (Chee et al. 2023; with Hadamard matrices, Tseng et al. 2024), on both sides of a
/// weight: W' = U W V. V changes the signs of columns at random and then multiplies by Sylvester's Hadamard matrix /
/// sqrt(block), block by block; U does the same to the rows of a strip. Both are orthogonal, so with H' = V'HV errors
/// count as much as before: e H e' summed over the rows of a strip does not change.
///
/// A block is the largest power of two that divides the columns, at most 4096, and for rows the largest that divides
/// the strip. An odd number of columns, or of rows in a strip, gets signs only.
class Incoherence {
 public:
  static constexpr int64_t kLargestBlock = 4096;

  /// `key` decides the signs (Rounding::key: from a seed and a tensor's name). Sign j of V is bit 0 of
  /// random_bits(key, j), that of row r of U the same of random_bits(key, 2^62 + r); 1 = minus.
  Incoherence(int64_t cols, uint64_t key);

  /// X V and X V' of X [rows, cols], in place.
  void rotate_columns(float* x, int64_t rows) const;
  void restore_columns(float* x, int64_t rows) const;
  /// U X V and U' X V' of a strip whose first row is `row0` of the weight, in place.
  void rotate(float* x, int64_t row0, int64_t rows) const;
  void restore(float* x, int64_t row0, int64_t rows) const;
  /// V' H V of a symmetric H [cols, cols] of which the lower triangle is given; all of it comes back.
  void rotate_moments(std::vector<float>& h) const;

 private:
  void change_row_signs(float* x, int64_t row0, int64_t rows) const;
  void mix_rows(float* x, int64_t rows) const;

  int64_t cols_, block_;
  uint64_t key_;
  std::vector<float> signs_;
};

}  // namespace mezzotint::convert
