#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/correction/low_rank.h"
#include "mezzotint/convert/rewrite.h"

/// A LoRA file in the making (room-internal).
namespace mezzotint::convert {

class LoraFile {
 public:
  /// Throws Error "bad-option" where LoRAs have no such dtype or rank.
  LoraFile(DType dtype, int64_t rank);

  /// Throws what the writer would throw in the end, before the work: "output-is-input", "output-exists".
  static void check(const std::filesystem::path& output, const std::vector<const io::Source*>& inputs, bool overwrite);

  /// Rounds values to the dtype of the file, in place too.
  std::vector<std::byte> round(std::vector<float>& values) const;
  /// KEY.lora_up.weight [rows, rank, 1...], KEY.lora_down.weight [rank, the weight's other dimensions] and KEY.alpha.
  void add(const std::string& key, const Shape& weight, int64_t rank, std::vector<std::byte> up,
           std::vector<std::byte> down, double alpha);
  /// A whole tensor.
  void add(std::string name, Shape shape, std::vector<std::byte> bytes);

  bool empty() const { return items_.empty(); }
  /// Writes what was added, with `origin` as the file's history, and returns its bytes. Atomic.
  uint64_t write(const std::filesystem::path& output, const std::string& origin,
                 const std::vector<const io::Source*>& inputs, bool overwrite) const;

 private:
  DType dtype_;
  std::vector<RewriteItem> items_;
};

/// sqrt(part / whole), for sums of squares; 0 where there is nothing.
double root_ratio(double part, double whole);

}  // namespace mezzotint::convert
