#pragma once
#include <cstdint>
#include <string_view>

namespace mezzotint {

/// How a value between two codes becomes one of them.
struct Rounding {
  enum class Mode : uint8_t { nearest_even, stochastic };
  Mode mode = Mode::nearest_even;
  uint64_t key = 0;  ///< stochastic: stream of the tensor, from (seed, tensor name)

  static Rounding nearest() { return {}; }
  /// The stream depends on nothing but the seed and the tensor's name; the random number of an element depends on
  /// nothing but the stream and the element's index row * cols + col in the logical weight. So the bytes are the same
  /// for every thread count, tile and device.
  static Rounding stochastic(uint64_t seed, std::string_view tensor_name);
};

}  // namespace mezzotint
