#pragma once
#include <string>
#include <vector>

namespace mezzotint::cli {

/// Columns of text, two blanks apart. Columns whose heading starts with '>' are right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);
  void add(std::vector<std::string> row);
  /// With a heading line where any heading has text.
  std::string to_text() const;

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace mezzotint::cli
