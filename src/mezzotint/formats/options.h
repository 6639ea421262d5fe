#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace mezzotint::formats {

/// Options of a format as text, e.g. {"block_size": "128"}. Kept as text because they come from and go to text (command
/// line, recipes, markers); the specs below say what each may hold.
class Options {
 public:
  void set(std::string_view name, std::string_view value) { values_.insert_or_assign(std::string(name), value); }
  bool has(std::string_view name) const { return values_.find(name) != values_.end(); }
  /// The accessors assume a completed set (complete_options): a missing name is a programming error.
  std::string_view text(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  bool flag(std::string_view name) const { return text(name) == "true"; }
  const std::map<std::string, std::string, std::less<>>& values() const { return values_; }
  /// "block_size=128,scaling=row"
  std::string to_text() const;
  bool operator==(const Options&) const = default;

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

/// Parses "a=b,c=d"; throws Error "bad-option" on anything else.
Options parse_options(std::string_view text);

struct OptionSpec {
  enum class Type : uint8_t { flag, integer, choice };
  std::string_view name;
  Type type;
  std::string_view default_value;
  std::string_view choices;  ///< for choice: "tensor|row"; for integer: "MIN..MAX"
  std::string_view help;
};

struct Alias {
  std::string_view name;
  std::string_view options;  ///< what the alias sets, "scaling=row"
};

}  // namespace mezzotint::formats
