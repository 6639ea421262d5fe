#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mezzotint::io {

/// FNV-1a with 64 bits (Fowler, Noll, Vo: offset basis cbf29ce484222325, prime 100000001b3). It tells apart inputs that
/// differ by accident; it does not withstand an attacker. About 1 byte per 4 cycles: for headers, not for whole models.
class Hash64 {
 public:
  constexpr Hash64& add(std::string_view bytes) {
    for (const char c : bytes) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
    return *this;
  }
  /// Adds an integer as 8 little-endian bytes.
  constexpr Hash64& add(std::integral auto number) {
    auto bits = static_cast<uint64_t>(number);
    for (int i = 0; i < 8; ++i, bits >>= 8) state_ = (state_ ^ (bits & 0xff)) * 0x100000001b3ull;
    return *this;
  }
  constexpr uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

}  // namespace mezzotint::io
