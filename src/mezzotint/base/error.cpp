#include "mezzotint/base/error.h"

namespace mezzotint {
namespace {

std::string compose(const ErrorInfo& info) {
  std::string text;
  if (!info.file.empty()) text += info.file + ": ";
  if (!info.tensor.empty()) text += "tensor '" + info.tensor + "': ";
  text += info.problem;
  if (!info.expected.empty() || !info.found.empty()) {
    text += " (";
    if (!info.expected.empty()) text += "expected " + info.expected;
    if (!info.expected.empty() && !info.found.empty()) text += ", ";
    if (!info.found.empty()) text += "found " + info.found;
    text += ")";
  }
  if (!info.advice.empty()) text += ". " + info.advice;
  return text;
}

}  // namespace

Error::Error(ErrorInfo info) : info_(std::move(info)), message_(compose(info_)) {}

}  // namespace mezzotint
