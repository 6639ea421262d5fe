#pragma once
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

namespace mezzotint::formats {

/// Hands out parts of a caller's buffer, one after the other, each aligned to a cache line. `take` must not ask for
/// more than there is.
class Scratch {
 public:
  static constexpr size_t kAlignment = 64;

  explicit Scratch(std::span<std::byte> buffer) : rest_(buffer) {}

  template <class T>
  T* take(int64_t count) {
    const size_t skip = (kAlignment - reinterpret_cast<uintptr_t>(rest_.data()) % kAlignment) % kAlignment;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    assert(skip + bytes <= rest_.size());
    T* part = reinterpret_cast<T*>(rest_.data() + skip);
    rest_ = rest_.subspan(skip + bytes);
    return part;
  }
  std::span<std::byte> rest() const { return rest_; }

 private:
  std::span<std::byte> rest_;
};

/// What `take<T>(count)` may use up.
template <class T>
constexpr size_t scratch_bytes(int64_t count) {
  return static_cast<size_t>(count) * sizeof(T) + Scratch::kAlignment;
}

}  // namespace mezzotint::formats
