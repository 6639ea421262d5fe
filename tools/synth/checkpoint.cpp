#include "synth/checkpoint.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "synth/recipe.h"
#include "synth/values.h"

namespace mezzotint::synth {
namespace {

constexpr uint64_t kPieceBytes = 8u << 20;

/// Hands out pieces of tensors in order; keeps the first error.
class Work {
 public:
  struct Piece {
    size_t tensor;
    uint64_t first, count;  // elements
  };

  explicit Work(const std::vector<io::TensorSpec>& specs) : specs_(specs) {}

  bool next(Piece& piece) {
    const std::lock_guard lock(mutex_);
    if (error_) return false;
    while (tensor_ < specs_.size() && first_ >= elements(tensor_)) {
      ++tensor_;
      first_ = 0;
    }
    if (tensor_ == specs_.size()) return false;
    const uint64_t step = kPieceBytes * 8 / facts(specs_[tensor_].dtype).bits;
    piece = {tensor_, first_, std::min(step, elements(tensor_) - first_)};
    first_ += piece.count;
    return true;
  }

  void fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }

  void rethrow() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  uint64_t elements(size_t tensor) const { return element_count(specs_[tensor].shape).value_or(0); }

  const std::vector<io::TensorSpec>& specs_;
  std::mutex mutex_;
  size_t tensor_ = 0;
  uint64_t first_ = 0;
  std::exception_ptr error_;
};

}  // namespace

uint64_t write_checkpoint(const std::filesystem::path& path, const std::vector<io::TensorSpec>& specs,
                          const WriteOptions& options) {
  io::OutputOptions output{.metadata = options.metadata};
  if (options.shards > 1) output.max_shard_bytes = data_bytes(specs) / options.shards + 1;
  io::Writer writer(io::plan_output(path, specs, output), io::Writer::Mode::create, options.overwrite);

  Work work(specs);
  const auto run = [&] {
    try {
      std::vector<std::byte> buffer;
      for (Work::Piece piece{}; work.next(piece);) {
        const auto& spec = specs[piece.tensor];
        const uint64_t width = facts(spec.dtype).bits / 8;
        buffer.resize(piece.count * width);
        fill(spec, options.seed, piece.first, piece.count, buffer.data());
        writer.write(piece.tensor, piece.first * width, buffer.data(), buffer.size());
      }
    } catch (...) {
      work.fail(std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 1; t < options.threads; ++t) threads.emplace_back(run);
    run();
  }
  try {
    work.rethrow();
  } catch (...) {
    writer.discard();
    throw;
  }
  writer.commit();
  return writer.plan().total_bytes;
}

}  // namespace mezzotint::synth
