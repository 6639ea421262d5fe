#pragma once
#include <string>
#include <vector>

#include "mezzotint/convert/report/report.h"

/// What a person should know and do, in plain words.
namespace mezzotint::convert {

struct WorstLayer {
  size_t layer = 0;
  double ratio = 0;  ///< its relative error / the typical one of its format
  bool stands_out = false;
  std::string cause;  ///< one sentence, or ""
};

/// One way to make it better.
struct Mend {
  std::string option;  ///< to be added to the command, quoted for a shell
  std::string effect;  ///< what it does and costs, a sentence
};

struct Findings {
  std::vector<WorstLayer> worst;        ///< at most three
  size_t standing_out = 0;              ///< layers that do not belong to their like (standings), in all
  std::string verdict;                  ///< one sentence about the three
  std::vector<Mend> mends;              ///< what mends the three, the best first; empty without measured errors
  std::vector<ReportWarning> warnings;  ///< the report's own and those that its numbers give
};
Findings find(const Report& report);

/// The text as one word of a POSIX shell.
std::string shell_word(std::string_view text);
/// A regex that matches these layer names and nothing else.
std::string exact_pattern(const std::vector<std::string>& names);

}  // namespace mezzotint::convert
