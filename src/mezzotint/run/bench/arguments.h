#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// `mezzotint-bench wan` (room-internal).
namespace mezzotint::run::bench {

struct Arguments {
  std::vector<std::string> models = {"5b", "14b"};  ///< or a width and a feed-forward width, "256x512"
  std::vector<int64_t> m;         ///< rows of activations: three shapes of layers at each, instead of the four cases
  std::optional<int64_t> tokens;  ///< of the long sequence
  std::optional<int64_t> block_tokens;
  std::vector<std::string> formats;  ///< empty = every format that can be written
  std::string device = "cpu";
  int threads = 0;       ///< 0 = as many as libtorch takes by itself
  double seconds = 1.0;  ///< that the turns of one table row take at least, all together
  int rounds = 5;        ///< turns at least
  bool cpu_time = false;
  std::string only;  ///< "layers" or "block"; "" = both
  bool quick = false;
  bool fp32 = true;  ///< torch's linear in float32 takes turns, too
  std::string json;  ///< file
};

/// Measures and prints. Returns whether every answer was right. Throws Error "bad-option", "no-gpu",
/// "unknown-format".
bool wan(const Arguments& arguments);

}  // namespace mezzotint::run::bench
