#pragma once
#include <cstdint>

/// Counting in blocks, for n >= 0 and sizes > 0.
namespace mezzotint {

/// Blocks of `size` that hold n.
constexpr int64_t divide_up(int64_t n, int64_t size) {
  return (n + size - 1) / size;
}
/// The smallest multiple of `multiple` that is not below n.
constexpr int64_t round_up_to(int64_t n, int64_t multiple) {
  return divide_up(n, multiple) * multiple;
}

}  // namespace mezzotint
