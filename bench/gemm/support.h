#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

/// What the benchmarks of matrix products share: one program, a row of text per product. Every row is checked before it
/// is timed and held against a limit measured in the same run.
namespace mezzotint::bench {

struct Options {
  bool all = false;       ///< every shape, not the quick choice
  std::string filter;     ///< rows whose text contains it
  bool cpu_time = false;  ///< time of the thread instead of the clock's: where others use the machine too
  bool json = false;      ///< one JSON object a line: the limits, then every row
  double seconds = 0.35;  ///< that a row is timed at least
};

/// Per second, of one thread.
struct Limits {
  double int8 = 0, bf16 = 0, f32 = 0;  ///< operations from registers; 0 where the machine has no such instructions
  double read = 0;                     ///< bytes read from memory beyond the caches
  double cycles = 0;                   ///< dependent additions
};

struct Shape {
  const char* model;
  int64_t n, k;
};
/// Linear layers of Wan 5B and 14B, Flux and T5.
const std::vector<Shape>& shapes();

/// A product to check and time.
struct Row {
  std::string text;  ///< what it is, its shape, its threads
  int threads = 1;
  double operations = 0;  ///< multiplications and additions
  double bytes = 0;       ///< that must come from memory
  double peak = 0;        ///< operations per second of one thread; 0: only memory limits it
  /// Runs once more, each time on other weights, so that they come from memory.
  std::function<void()> run;
  /// Runs on the current weights and compares with the definition; the text says how exact it was, empty = wrong. A
  /// spoiled comparison must come out wrong.
  std::function<std::string(bool spoil)> check;
  /// The same with one thread, where there are several: timed in turn with run, by the clock.
  std::function<void()> alone;
};

class Report {
 public:
  explicit Report(const Options& options);
  const Options& options() const { return options_; }
  const Limits& limits() const { return limits_; }
  bool wants(const std::string& text) const { return text.find(options_.filter) != std::string::npos; }
  void add(const Row& row);
  bool correct() const { return correct_; }
  void set_filter(const std::string& filter) { options_.filter = filter; }

 private:
  Options options_;
  Limits limits_;
  bool correct_ = true;
};

/// A file of rows; construct one at namespace scope.
struct Section {
  explicit Section(void (*rows)(Report&));
};

/// Random bytes, more than the caches hold; the same ones every time.
const std::vector<uint8_t>& weight_pool();
/// Activations, the same ones every time: normal values that bf16 holds, and codes of any value. A longer list starts
/// with the shorter one.
std::vector<float> activations(int64_t count);
std::vector<int8_t> activation_codes(int64_t count);

/// Normal values in bf16, for quantizers.
std::vector<uint16_t> normals(int64_t count);
/// Row::check of a quantizer that `run`s: the codes it left are those of the scalar level.
std::string as_scalar_does(std::span<const std::byte> codes, const std::function<void()>& run, bool spoil);

/// The place of weights of `bytes` bytes in the pool, another one at each call.
class Rotation {
 public:
  explicit Rotation(int64_t bytes) : bytes_(bytes) {}
  const uint8_t* next();
  const uint8_t* current() const { return weight_pool().data() + at_; }

 private:
  int64_t bytes_, at_ = 0;
};

}  // namespace mezzotint::bench
