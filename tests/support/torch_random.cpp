#include "support/torch_random.h"

#include <cassert>
#include <cmath>
#include <numbers>

namespace mezzotint::test {
namespace {

constexpr size_t kBlock = 16;

void box_muller(float* x) {
  for (size_t i = 0; i < kBlock / 2; ++i) {
    const float radius = std::sqrt(-2.0f * std::log(1.0f - x[i]));
    const float angle = 2.0f * std::numbers::pi_v<float> * x[i + kBlock / 2];
    x[i] = radius * std::cos(angle);
    x[i + kBlock / 2] = radius * std::sin(angle);
  }
}

}  // namespace

std::vector<float> TorchGenerator::randn(size_t count) {
  assert(count >= kBlock);
  const auto uniform = [&] { return static_cast<float>(engine_() & 0xFFFFFFu) * 0x1p-24f; };
  std::vector<float> x(count);
  for (float& value : x) value = uniform();
  for (size_t i = 0; i + kBlock <= count; i += kBlock) box_muller(x.data() + i);
  if (count % kBlock != 0) {
    float* last = x.data() + count - kBlock;
    for (size_t i = 0; i < kBlock; ++i) last[i] = uniform();
    box_muller(last);
  }
  return x;
}

}  // namespace mezzotint::test
