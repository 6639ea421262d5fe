#pragma once
#include <cstdint>
#include <random>
#include <vector>

namespace mezzotint::test {

/// The stream of torch.Generator("cpu"): a 32-bit Mersenne Twister.
class TorchGenerator {
 public:
  explicit TorchGenerator(uint32_t seed) : engine_(seed) {}

  /// torch.randn(count) for count >= 16: uniform numbers of 24 bits, then Box-Muller over blocks of 16; an incomplete
  /// last block is drawn anew over the last 16 elements. torch's own logarithm, sine and cosine are approximations, so
  /// its numbers differ from these in the last bits.
  std::vector<float> randn(size_t count);

 private:
  std::mt19937 engine_;
};

}  // namespace mezzotint::test
