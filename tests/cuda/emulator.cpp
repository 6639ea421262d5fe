#include "cuda/emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>

namespace mezzotint::kernel::cuda::test {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
using device::kWarp;

/// Where a fibre goes on. _setjmp and _longjmp leave the signal mask alone; swapcontext asks the kernel for it twice,
/// which was most of what these tests did. Only the first entry of a stack needs a ucontext.
class Place {
 public:
  void start_at(const ucontext_t& context) { first_ = &context; }
  /// Leaves for `next`; returns when somebody goes back to this place.
  void leave_for(Place& next) {
    if (_setjmp(here_) == 0) next.enter();
  }
  [[noreturn]] void enter() {
    if (const ucontext_t* first = std::exchange(first_, nullptr)) setcontext(first);
    _longjmp(here_, 1);
  }

 private:
  jmp_buf here_;
  const ucontext_t* first_ = nullptr;
};

/// What the lanes of a warp put down for each other.
struct Exchange {
  uint32_t value[kWarp];
  const void* address[kWarp];
  uint32_t a[kWarp][4], b[kWarp][2];
};

}  // namespace

class Block {
 public:
  Block(uint32_t x, uint32_t y, uint32_t threads, std::vector<std::unique_ptr<char[]>>& stacks,
        const std::function<void(EmulatedThread&)>& body)
      : x_(x), y_(y), body_(body), fibres_(threads), exchange_(threads / kWarp) {
    for (uint32_t i = 0; i < threads; ++i) {
      Fibre& fibre = fibres_[i];
      fibre.thread.block_ = this;
      fibre.thread.index_ = i;
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = stacks[i].get();
      fibre.context.uc_stack.ss_size = kStackBytes;
      fibre.context.uc_link = nullptr;  // enter() does not return
      const auto self = reinterpret_cast<uintptr_t>(this);
      makecontext(&fibre.context, reinterpret_cast<void (*)()>(&Block::enter), 3, static_cast<uint32_t>(self >> 32),
                  static_cast<uint32_t>(self), i);
      fibre.place.start_at(fibre.context);
    }
  }

  void run(std::mt19937_64& rng) {
    std::vector<uint32_t> order(fibres_.size());
    std::iota(order.begin(), order.end(), 0u);
    // Warps run at different speeds: some rest for a few rounds while the others get as far as barriers let them.
    uint32_t resting = 0, rounds = 0;
    for (size_t done = 0; done < fibres_.size();) {
      if (rounds++ % 16 == 0) resting = static_cast<uint32_t>(rng());
      std::shuffle(order.begin(), order.end(), rng);
      bool progress = false;
      done = 0;
      for (const uint32_t i : order) {
        Fibre& fibre = fibres_[i];
        if (!fibre.done && ready(fibre) && (resting >> (i / kWarp) & 1) == 0) {
          progress = true;
          current_ = i;
          scheduler_.leave_for(fibre.place);
          if (failure_) std::rethrow_exception(failure_);
        }
        done += fibre.done ? 1 : 0;
      }
      if (!progress && done < fibres_.size() && std::exchange(resting, 0) == 0)
        throw std::logic_error("a barrier that not all threads reach");
    }
  }

  /// Returns when all threads of [first, first + count) have come here.
  void meet(uint32_t first, uint32_t count, bool whole_block) {
    Fibre& self = fibres_[current_];
    Meeting& meeting = whole_block ? meetings_.back() : meetings_[first / kWarp];
    self.meeting = &meeting;
    self.generation = meeting.generation;
    if (++meeting.arrived == count) {
      meeting.arrived = 0;
      ++meeting.generation;
    }
    self.place.leave_for(scheduler_);
  }
  void meet_block() { meet(0, static_cast<uint32_t>(fibres_.size()), true); }
  void meet_warp(uint32_t thread) { meet(thread / kWarp * kWarp, kWarp, false); }
  Exchange& exchange(uint32_t thread) { return exchange_[thread / kWarp]; }

  uint32_t x_, y_;

 private:
  struct Meeting {
    uint32_t arrived = 0;
    uint64_t generation = 0;
  };
  struct Fibre {
    ucontext_t context;
    Place place;
    EmulatedThread thread;
    Meeting* meeting = nullptr;
    uint64_t generation = 0;
    bool done = false;
  };

  static bool ready(const Fibre& fibre) {
    return fibre.meeting == nullptr || fibre.meeting->generation != fibre.generation;
  }
  static void enter(uint32_t high, uint32_t low, uint32_t index) {
    auto& block = *reinterpret_cast<Block*>(static_cast<uintptr_t>(high) << 32 | low);
    Fibre& fibre = block.fibres_[index];
    try {
      block.body_(fibre.thread);
    } catch (...) {
      block.failure_ = std::current_exception();
    }
    fibre.done = true;
    block.scheduler_.enter();
  }

  const std::function<void(EmulatedThread&)>& body_;
  Place scheduler_;
  std::vector<Fibre> fibres_;
  std::vector<Exchange> exchange_;
  std::array<Meeting, 33> meetings_{};  ///< one per warp, the last for the block
  uint32_t current_ = 0;
  std::exception_ptr failure_;
};

uint32_t EmulatedThread::block_x() const {
  return block_->x_;
}
uint32_t EmulatedThread::block_y() const {
  return block_->y_;
}
void EmulatedThread::sync() {
  block_->meet_block();
}

uint32_t EmulatedThread::warp_max(uint32_t x, uint32_t width) {
  Exchange& exchange = block_->exchange(index_);
  exchange.value[lane()] = x;
  block_->meet_warp(index_);
  const uint32_t first = lane() / width * width;
  const uint32_t top = *std::max_element(exchange.value + first, exchange.value + first + width);
  block_->meet_warp(index_);  // before anyone puts down something new
  return top;
}

void EmulatedThread::load_matrices(uint32_t (&r)[4], const void* p) {
  Exchange& exchange = block_->exchange(index_);
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) throw std::logic_error("ldmatrix at an unaligned address");
  exchange.address[lane()] = p;
  block_->meet_warp(index_);
  for (uint32_t j = 0; j < 4; ++j)
    std::memcpy(&r[j], static_cast<const char*>(exchange.address[8 * j + lane() / 4]) + lane() % 4 * 4, 4);
  block_->meet_warp(index_);
}

// PTX ISA 9.7.14.5.10, "Matrix fragments for mma.m16n8k32" with .s8: element i of the four bytes of a register is its
// byte i.
void EmulatedThread::mma(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  Exchange& exchange = block_->exchange(index_);
  std::copy_n(a, 4, exchange.a[lane()]);
  exchange.b[lane()][0] = b0;
  exchange.b[lane()][1] = b1;
  block_->meet_warp(index_);
  const auto byte = [](uint32_t word, uint32_t i) {
    return static_cast<int32_t>(static_cast<int8_t>(word >> (8 * i)));
  };
  for (uint32_t e = 0; e < 4; ++e) {
    const uint32_t row = lane() / 4 + (e < 2 ? 0 : 8), col = lane() % 4 * 2 + (e & 1);
    uint32_t sum = static_cast<uint32_t>(d[e]);  // wraps, as .s32 without .satfinite does
    for (uint32_t k = 0; k < 32; ++k) {
      const uint32_t a_lane = row % 8 * 4 + k % 16 / 4, a_register = (row < 8 ? 0 : 1) + (k < 16 ? 0 : 2);
      const uint32_t b_lane = col * 4 + k % 16 / 4, b_register = k < 16 ? 0 : 1;
      sum += static_cast<uint32_t>(byte(exchange.a[a_lane][a_register], k % 4) *
                                   byte(exchange.b[b_lane][b_register], k % 4));
    }
    d[e] = static_cast<int32_t>(sum);
  }
  block_->meet_warp(index_);
}

void EmulatedThread::copy_async(void* shared, const void* global, uint32_t bytes) {
  if (bytes > 16 || reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0)
    throw std::logic_error("cp.async at an unaligned address or of more than 16 bytes");
  groups_.back().push_back({shared, global, bytes});
}
void EmulatedThread::commit() {
  groups_.emplace_back();
}
void EmulatedThread::wait_groups(size_t pending) {
  while (groups_.size() - 1 > pending) {
    for (const Copy& copy : groups_.front()) {
      std::memset(copy.shared, 0, 16);
      std::memcpy(copy.shared, copy.global, copy.bytes);
    }
    groups_.erase(groups_.begin());
  }
}

void emulate(device::Grid grid, uint32_t threads, uint64_t seed, const std::function<void(EmulatedThread&)>& body,
             const std::function<void()>& before_block) {
  static thread_local std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() < threads) stacks.push_back(std::make_unique_for_overwrite<char[]>(kStackBytes));
  std::mt19937_64 rng(seed);
  for (uint32_t y = 0; y < grid.y; ++y)
    for (uint32_t x = 0; x < grid.x; ++x) {
      before_block();
      Block(x, y, threads, stacks, body).run(rng);
    }
}

}  // namespace mezzotint::kernel::cuda::test
