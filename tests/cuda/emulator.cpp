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

/// A stack that runs a thread of one block after another; to make it costs system calls.
struct Fibre {
  Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  Place place;
  Block* block = nullptr;
  uint32_t index = 0;

 private:
  static void enter(uint32_t high, uint32_t low);
  std::unique_ptr<char[]> memory_ = std::make_unique_for_overwrite<char[]>(kStackBytes);
  ucontext_t context_;
};
using Crew = std::vector<std::unique_ptr<Fibre>>;

/// What the lanes of a warp put down for each other.
struct Exchange {
  uint32_t value[kWarp];
  const void* address[kWarp];
  uint32_t a[kWarp][4], b[kWarp][2];
};

}  // namespace

class Block {
 public:
  Block(uint32_t x, uint32_t y, uint32_t threads, Crew& crew, const std::function<void(EmulatedThread&)>& body)
      : x_(x), y_(y), body_(body), crew_(crew), threads_(threads), exchange_(threads / kWarp) {
    while (crew.size() < threads) crew.push_back(std::make_unique<Fibre>());
    for (uint32_t i = 0; i < threads; ++i) {
      crew[i]->block = threads_[i].thread.block_ = this;
      crew[i]->index = threads_[i].thread.index_ = i;
    }
  }

  /// On its fibre; returns when that runs the next block.
  void run_thread(uint32_t index) {
    try {
      body_(threads_[index].thread);
    } catch (...) {
      failure_ = std::current_exception();
    }
    threads_[index].done = true;
    crew_[index]->place.leave_for(scheduler_);
  }

  void run(std::mt19937_64& rng) {
    std::vector<uint32_t> order(threads_.size());
    std::iota(order.begin(), order.end(), 0u);
    // Warps run at different speeds: some rest for a few rounds while the others get as far as barriers let them.
    uint32_t resting = 0, rounds = 0;
    for (size_t done = 0; done < threads_.size();) {
      if (rounds++ % 16 == 0) resting = static_cast<uint32_t>(rng());
      std::shuffle(order.begin(), order.end(), rng);
      bool progress = false;
      done = 0;
      for (const uint32_t i : order) {
        const Thread& thread = threads_[i];
        if (!thread.done && ready(thread) && (resting >> (i / kWarp) & 1) == 0) {
          progress = true;
          current_ = i;
          scheduler_.leave_for(crew_[i]->place);
          if (failure_) std::rethrow_exception(failure_);
        }
        done += thread.done ? 1 : 0;
      }
      if (!progress && done < threads_.size() && std::exchange(resting, 0) == 0)
        throw std::logic_error("a barrier that not all threads reach");
    }
  }

  /// Returns when all threads of [first, first + count) have come here.
  void meet(uint32_t first, uint32_t count, bool whole_block) {
    Thread& self = threads_[current_];
    Meeting& meeting = whole_block ? meetings_.back() : meetings_[first / kWarp];
    self.meeting = &meeting;
    self.generation = meeting.generation;
    if (++meeting.arrived == count) {
      meeting.arrived = 0;
      ++meeting.generation;
    }
    crew_[current_]->place.leave_for(scheduler_);
  }
  void meet_block() { meet(0, static_cast<uint32_t>(threads_.size()), true); }
  void meet_warp(uint32_t thread) { meet(thread / kWarp * kWarp, kWarp, false); }
  Exchange& exchange(uint32_t thread) { return exchange_[thread / kWarp]; }

  uint32_t x_, y_;

 private:
  struct Meeting {
    uint32_t arrived = 0;
    uint64_t generation = 0;
  };
  struct Thread {
    EmulatedThread thread;
    Meeting* meeting = nullptr;
    uint64_t generation = 0;
    bool done = false;
  };

  static bool ready(const Thread& thread) {
    return thread.meeting == nullptr || thread.meeting->generation != thread.generation;
  }
  const std::function<void(EmulatedThread&)>& body_;
  Crew& crew_;
  std::vector<Thread> threads_;
  std::vector<Exchange> exchange_;
  std::array<Meeting, 33> meetings_{};  ///< one per warp, the last for the block
  Place scheduler_;
  uint32_t current_ = 0;
  std::exception_ptr failure_;
};

Fibre::Fibre() {
  getcontext(&context_);
  context_.uc_stack.ss_sp = memory_.get();
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;  // enter() does not return
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&context_, reinterpret_cast<void (*)()>(&Fibre::enter), 2, static_cast<uint32_t>(self >> 32),
              static_cast<uint32_t>(self));
  place.start_at(context_);
}
void Fibre::enter(uint32_t high, uint32_t low) {
  const auto& self = *reinterpret_cast<Fibre*>(static_cast<uintptr_t>(high) << 32 | low);
  for (;;) self.block->run_thread(self.index);
}

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
  static thread_local Crew crew;
  std::mt19937_64 rng(seed);
  try {
    for (uint32_t y = 0; y < grid.y; ++y)
      for (uint32_t x = 0; x < grid.x; ++x) {
        before_block();
        Block(x, y, threads, crew, body).run(rng);
      }
  } catch (...) {
    crew.clear();  // some are in the middle of what failed
    throw;
  }
}

}  // namespace mezzotint::kernel::cuda::test
