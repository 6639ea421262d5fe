#pragma once
#include <algorithm>
#include <cassert>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace mezzotint::formats {

/// Bytes of one stored tensor: owned, or a view of somebody else's memory (a mapped file, a tensor of another library),
/// which must then outlive it. Views are only read.
class Bytes {
 public:
  Bytes() = default;
  Bytes(std::vector<std::byte> owned) : owned_(std::move(owned)) {}
  explicit Bytes(size_t size, std::byte value = {}) : owned_(size, value) {}
  static Bytes view(std::span<const std::byte> bytes) {
    Bytes result;
    result.view_ = bytes;
    return result;
  }

  const std::byte* data() const { return is_view() ? view_.data() : owned_.data(); }
  size_t size() const { return is_view() ? view_.size() : owned_.size(); }
  bool empty() const { return size() == 0; }
  const std::byte* begin() const { return data(); }
  const std::byte* end() const { return data() + size(); }
  const std::byte& operator[](size_t i) const { return data()[i]; }

  std::byte* data() { return owned().data(); }
  std::byte* begin() { return owned().data(); }
  std::byte* end() { return owned().data() + owned_.size(); }
  std::byte& operator[](size_t i) { return owned()[i]; }
  void push_back(std::byte value) { owned().push_back(value); }
  void resize(size_t size) { owned().resize(size); }
  void assign(size_t size, std::byte value) { owned().assign(size, value); }

  friend bool operator==(const Bytes& a, const Bytes& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

 private:
  bool is_view() const { return view_.data() != nullptr; }
  std::vector<std::byte>& owned() {
    assert(!is_view());
    return owned_;
  }

  std::vector<std::byte> owned_;
  std::span<const std::byte> view_;
};

}  // namespace mezzotint::formats
