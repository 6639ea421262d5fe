#include "mezzotint/convert/optimizers/incoherence.h"

#include <algorithm>

#include "mezzotint/base/philox.h"
#include "mezzotint/convert/optimizers/moments.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::convert {
namespace {

constexpr uint64_t kRowSigns = uint64_t{1} << 62;

int64_t block_of(int64_t size) {
  return std::min(size & -size, Incoherence::kLargestBlock);
}

float sign(uint64_t key, uint64_t index) {
  return (random_bits(key, index) & 1) != 0 ? -1.0f : 1.0f;
}

}  // namespace

Incoherence::Incoherence(int64_t cols, uint64_t key) : cols_(cols), block_(block_of(cols)), key_(key) {
  for (int64_t j = 0; j < cols; ++j) signs_.push_back(sign(key, static_cast<uint64_t>(j)));
}

void Incoherence::rotate_columns(float* x, int64_t rows) const {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols_; ++j) x[r * cols_ + j] *= signs_[static_cast<size_t>(j)];
  if (block_ > 1) kernel::rotate_sylvester(x, rows * cols_, block_);
}

void Incoherence::restore_columns(float* x, int64_t rows) const {
  if (block_ > 1) kernel::rotate_sylvester(x, rows * cols_, block_);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols_; ++j) x[r * cols_ + j] *= signs_[static_cast<size_t>(j)];
}

void Incoherence::change_row_signs(float* x, int64_t row0, int64_t rows) const {
  for (int64_t r = 0; r < rows; ++r) {
    const float s = sign(key_, kRowSigns + static_cast<uint64_t>(row0 + r));
    for (int64_t j = 0; j < cols_; ++j) x[r * cols_ + j] *= s;
  }
}

void Incoherence::mix_rows(float* x, int64_t rows) const {
  const int64_t block = rows > 0 ? block_of(rows) : 1;
  if (block > 1) kernel::rotate_sylvester(x, rows * cols_, block, cols_);
}

void Incoherence::rotate(float* x, int64_t row0, int64_t rows) const {
  change_row_signs(x, row0, rows);
  mix_rows(x, rows);
  rotate_columns(x, rows);
}

void Incoherence::restore(float* x, int64_t row0, int64_t rows) const {
  restore_columns(x, rows);
  mix_rows(x, rows);
  change_row_signs(x, row0, rows);
}

void Incoherence::rotate_moments(std::vector<float>& h) const {
  convert::rotate_moments(h, cols_, [this](float* rows, int64_t count) { rotate_columns(rows, count); });
}

}  // namespace mezzotint::convert
