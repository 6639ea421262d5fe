#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "mezzotint/kernel/cuda/device/machine.h"

/// A GPU for tests: the machine of device/machine.h on one thread of the host. The threads of a block are fibres that
/// run in a random order from barrier to barrier, warps at different speeds, so what works here does not lean on an
/// order. Shared memory starts as
/// garbage, and copy_async really is late: its bytes arrive at wait(), not before. A barrier or a collective that not
/// all threads reach is an error (std::logic_error).
namespace mezzotint::kernel::cuda::test {

class Block;

/// One thread of a block.
class EmulatedThread {
 public:
  uint32_t thread() const { return index_; }
  uint32_t block_x() const;
  uint32_t block_y() const;
  void sync();
  uint32_t warp_max(uint32_t x, uint32_t width);
  void atomic_max(uint32_t* p, uint32_t x) { *p = x > *p ? x : *p; }
  void load_matrices(uint32_t (&r)[4], const void* p);
  void mma(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
  void copy_async(void* shared, const void* global, uint32_t bytes);
  void commit();
  template <int kPending>
  void wait() {
    wait_groups(kPending);
  }
  float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

 private:
  friend class Block;
  struct Copy {
    void* shared;
    const void* global;
    uint32_t bytes;
  };
  void wait_groups(size_t pending);
  uint32_t lane() const { return index_ % device::kWarp; }

  Block* block_ = nullptr;
  uint32_t index_ = 0;
  std::vector<std::vector<Copy>> groups_ = {{}};  ///< the last one is not committed yet
};

/// Runs `body(thread)` on every thread of every block; `seed` orders them.
void emulate(device::Grid grid, uint32_t threads, uint64_t seed, const std::function<void(EmulatedThread&)>& body,
             const std::function<void()>& before_block);

/// The launcher of dispatch.h.
struct EmulatedLauncher {
  uint64_t seed = 1;

  template <class Body>
  void run(device::Grid grid, const typename Body::Args& args) {
    static_assert(Body::kThreads % device::kWarp == 0 && sizeof(typename Body::Shared) <= 48 * 1024);
    alignas(64) static thread_local unsigned char shared[48 * 1024];
    emulate(
        grid, Body::kThreads, seed++,
        [&](EmulatedThread& thread) { Body::run(thread, args, *reinterpret_cast<typename Body::Shared*>(shared)); },
        [&] { std::memset(shared, 0xCD, sizeof shared); });
  }
  void zero(void* memory, uint64_t bytes) { std::memset(memory, 0, bytes); }
};

}  // namespace mezzotint::kernel::cuda::test
