#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

/// Cells of the tables in docs/adapters.md: what a test measured, or why there is nothing to measure. The test holds
/// them against the document, by what is measured and what is not (digits may differ between machines); with a folder
/// in the environment's MEZZOTINT_MATRIX it writes them there, for tools/docs/adapters.py, and compares nothing.
namespace mezzotint::test {

struct Cell {
  std::map<std::string, double> figures;  ///< the worst of each
  std::set<std::string> reasons;          ///< why something of it, or everything, is left out
};

class Matrix {
 public:
  /// One row of each table of a mode: "merge", "bypass", "gradients".
  Matrix(std::string mode, std::string format) : mode_(std::move(mode)), format_(std::move(format)) {}

  /// A figure that is at most `limit`; a test failure otherwise.
  void measure(const std::string& kind, const std::string& algorithm, const std::string& figure, double value,
               double limit);
  void leave_out(const std::string& kind, const std::string& algorithm, const std::string& reason);

  /// Compares with the document or writes. Every algorithm must have a cell for every kind.
  void finish(const std::vector<std::string>& kinds, const std::vector<std::string>& algorithms) const;

 private:
  std::string mode_, format_;
  std::map<std::pair<std::string, std::string>, Cell> cells_;
};

/// Formats that the document's tables of a mode have rows for.
std::set<std::string> documented_formats(const std::string& mode);

}  // namespace mezzotint::test
