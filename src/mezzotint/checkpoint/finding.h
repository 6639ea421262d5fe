#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace mezzotint::checkpoint {

enum class Severity : uint8_t { note, warning, error };

/// One thing worth saying about a file, in one sentence.
struct Finding {
  Severity severity = Severity::note;
  std::string_view code;  ///< stable kebab-case identifier, e.g. "orphan-scale"
  std::string subject;    ///< tensor or layer name, or "" for the file
  std::string message;
  bool repairable = false;  ///< `repair` mends it without loss
};

}  // namespace mezzotint::checkpoint
