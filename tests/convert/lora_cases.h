#pragma once
#include <numeric>

#include "convert/merging.h"
#include "support/torch_random.h"

/// The weights and LoRAs of the experiments behind docs/quality.md, value by value.
namespace mezzotint::convert {

inline double squares(const Matrix& values) {
  return std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
}

inline constexpr int64_t kSide = 1024;

/// A LoRA of two draws of torch's stream: the scripts behind section 3 use the same.
inline Lora drawn(test::TorchGenerator& generator, int64_t rank) {
  Lora lora{kSide, kSide, rank, {}, {}, std::nullopt};
  lora.up = generator.randn(static_cast<size_t>(kSide * rank));
  lora.down = generator.randn(static_cast<size_t>(kSide * rank));
  return lora;
}

/// A signal of rank 32 that decays, half of the energy, and noise: section 3's base.
inline std::vector<float> low_rank_base() {
  test::TorchGenerator generator(1000);
  Lora signal = drawn(generator, 32);
  for (size_t i = 0; i < signal.up.size(); ++i) signal.up[i] *= std::pow(static_cast<float>(i % 32 + 1), -0.7f);
  const Matrix low = signal.delta();
  std::vector<float> w = generator.randn(low.size());
  for (float& x : w) x *= 0.02f;
  const double factor = std::sqrt(squares(Matrix(w.begin(), w.end())) / squares(low));
  for (size_t i = 0; i < w.size(); ++i) w[i] += static_cast<float>(factor * low[i]);
  return w;
}

/// The LoRA with a delta of `share` of the length of w.
inline Lora of_length(Lora lora, const std::vector<float>& w, double share) {
  const double length = std::sqrt(squares(Matrix(w.begin(), w.end())) / squares(lora.delta()));
  for (float& x : lora.up) x *= static_cast<float>(share * length);
  return lora;
}

inline Matrix sum_of(const std::vector<float>& w, const Matrix& delta) {
  Matrix sum(w.begin(), w.end());
  for (size_t i = 0; i < delta.size(); ++i) sum[i] += delta[i];
  return sum;
}

inline Lora smooth_lora() {
  test::TorchGenerator generator(300);
  Lora lora = drawn(generator, 32);
  for (size_t i = 0; i < lora.up.size(); ++i) lora.up[i] /= std::sqrt(static_cast<float>(i % 32 + 1));
  return lora;
}

/// The first of torch.randperm(kSide).
inline std::vector<int64_t> permuted(std::mt19937& engine, size_t count) {
  std::vector<int64_t> all(kSide);
  std::iota(all.begin(), all.end(), 0);
  for (size_t i = 0; i + 1 < all.size(); ++i) std::swap(all[i], all[i + engine() % (all.size() - i)]);
  all.resize(count);
  return all;
}

/// 8 rows and 8 columns that are 40 times as large: section 3's concentrated LoRA.
inline Lora spiky_lora() {
  test::TorchGenerator generator(300);
  Lora lora = drawn(generator, 16);
  std::mt19937 engine(300);
  engine.discard(lora.up.size() + lora.down.size());
  for (const int64_t row : permuted(engine, 8))
    for (int64_t k = 0; k < 16; ++k) lora.up[static_cast<size_t>(row * 16 + k)] *= 40;
  for (const int64_t column : permuted(engine, 8))
    for (int64_t k = 0; k < 16; ++k) lora.down[static_cast<size_t>(k * kSide + column)] *= 40;
  return lora;
}

}  // namespace mezzotint::convert
