#pragma once
#include <exception>
#include <string>
#include <string_view>

namespace mezzotint {

/// What went wrong with a user's input, in the parts a person needs to mend it. Empty parts are left out of the
/// message.
struct ErrorInfo {
  std::string_view name;  ///< stable kebab-case identifier with static storage, e.g. "header-too-large"
  std::string problem;    ///< one clause, e.g. "two tensors share bytes"
  std::string file;       ///< path of the file, if one is involved
  std::string tensor;     ///< tensor or layer name, if one is involved
  std::string expected;
  std::string found;
  std::string advice;  ///< what to do about it
};

/// Wrong input. Wrong code is an assert instead. The message reads
/// "FILE: tensor 'T': PROBLEM (expected E, found F). ADVICE".
class Error : public std::exception {
 public:
  explicit Error(ErrorInfo info);
  const char* what() const noexcept override { return message_.c_str(); }
  const ErrorInfo& info() const noexcept { return info_; }
  std::string_view name() const noexcept { return info_.name; }

 private:
  ErrorInfo info_;
  std::string message_;
};

}  // namespace mezzotint
