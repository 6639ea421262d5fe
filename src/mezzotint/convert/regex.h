#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace mezzotint::convert {

/// A regular expression as people write them for Python's `re`: PCRE2 with lookaround, named groups (?P<name>...),
/// (?i: ...), possessive quantifiers. Subjects are tensor names.
///
/// Immutable after construction, so safe to use from several threads; cheap to copy. Matching is bounded: a pattern
/// that would backtrack for ever ends in Error "regex-too-slow" instead.
class Regex {
 public:
  /// Throws Error "bad-regex" with the position (in bytes, from 0) where the pattern stops making sense.
  explicit Regex(std::string_view pattern);

  /// Whether the pattern matches anywhere (Python's re.search).
  bool search(std::string_view subject) const;
  /// Whether the pattern matches the whole subject (Python's re.fullmatch).
  bool fullmatch(std::string_view subject) const;
  /// The subject with every match replaced. In `replacement`, $1 and ${name} stand for groups and $$ for a dollar sign.
  /// Throws Error "bad-replacement" where it names a group that does not exist.
  std::string replace(std::string_view subject, std::string_view replacement) const;

  const std::string& pattern() const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace mezzotint::convert
