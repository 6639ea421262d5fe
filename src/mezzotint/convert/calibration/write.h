#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "mezzotint/convert/calibration/calibration.h"

namespace mezzotint::convert {

/// What was recorded of one layer.
struct LayerRecording {
  std::string name;
  LayerStatistics statistics;
  /// Row `row` of the lower triangle of X'X / T, row + 1 floats; needed where statistics.has_gram.
  std::function<void(int64_t row, float* out)> gram_row;
};

/// Writes a file that Calibration::open reads (docs/calibration.md), atomically. Throws the Errors of io::Writer, and
/// "nothing-recorded" where there is no layer.
void write_calibration(const std::filesystem::path& path, std::span<const LayerRecording> layers, bool overwrite);

}  // namespace mezzotint::convert
