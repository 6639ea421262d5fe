#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "mezzotint/convert/calibration/calibration.h"
#include "mezzotint/io/reader.h"

/// One calibration file (room-internal).
namespace mezzotint::convert {

inline constexpr std::string_view kCalibrationKey = "mezzotint_calibration";
inline constexpr std::string_view kCalibrationVersion = "1";

/// A layer of one file, checked.
struct RecordedLayer {
  std::string name;
  LayerStatistics statistics;
  size_t gram = io::Source::npos;  ///< tensor of the triangle
};

struct CalibrationFile {
  io::Source source;
  std::vector<RecordedLayer> layers;
  uint64_t fingerprint = 0;
};

/// Throws the Errors of Calibration::open that concern one file.
CalibrationFile read_calibration_file(const std::filesystem::path& path);

}  // namespace mezzotint::convert
