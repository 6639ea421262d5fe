#include "mezzotint/convert/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <new>

#include "mezzotint/base/error.h"

namespace mezzotint::convert {
namespace {

constexpr size_t kMaxPatternBytes = 64 * 1024;
// Backtracking steps. Ordinary patterns need a few hundred on a tensor name; PCRE2's own default is ten million.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 16 * 1024;

struct CodeFree {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct DataFree {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct ContextFree {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct CompileContextFree {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
using CodePointer = std::unique_ptr<pcre2_code, CodeFree>;

template <class T>
T* checked(T* pointer) {
  if (!pointer) throw std::bad_alloc();
  return pointer;
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.empty() ? "" : text.data());
}

std::string message(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return fmt::format("PCRE2 error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

CodePointer compile(std::string_view pattern, uint32_t options) {
  const std::unique_ptr<pcre2_compile_context, CompileContextFree> context(
      checked(pcre2_compile_context_create(nullptr)));
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  int error = 0;
  PCRE2_SIZE offset = 0;
  CodePointer code(pcre2_compile(units(pattern), pattern.size(),
                                 options | PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &error,
                                 &offset, context.get()));
  if (!code) {
    throw Error({.name = "bad-regex",
                 .problem = fmt::format("regular expression '{}': {} at position {}", pattern.substr(0, 200),
                                        message(error), offset),
                 .advice = "Patterns are those of Python's re"});
  }
  // Without a JIT (other CPUs, hardened kernels) the interpreter gives the same answers.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

}  // namespace

struct Regex::Code {
  std::string pattern;
  CodePointer search, whole;

  [[noreturn]] void fail(int code, std::string_view subject) const {
    if (code == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
    throw Error({.name = "regex-too-slow",
                 .problem = fmt::format("regular expression '{}' gave up on '{}': {}", pattern, subject.substr(0, 200),
                                        message(code)),
                 .advice = "Write it without nested repetition such as (a+)+"});
  }

  std::unique_ptr<pcre2_match_context, ContextFree> limits() const {
    std::unique_ptr<pcre2_match_context, ContextFree> context(checked(pcre2_match_context_create(nullptr)));
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_depth_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    return context;
  }

  bool match(const pcre2_code* code, std::string_view subject) const {
    const std::unique_ptr<pcre2_match_data, DataFree> data(
        checked(pcre2_match_data_create_from_pattern(code, nullptr)));
    const auto context = limits();
    int result = pcre2_match(code, units(subject), subject.size(), 0, 0, data.get(), context.get());
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(code, units(subject), subject.size(), 0, PCRE2_NO_JIT, data.get(), context.get());
    }
    if (result >= 0) return true;
    if (result == PCRE2_ERROR_NOMATCH) return false;
    fail(result, subject);
  }
};

Regex::Regex(std::string_view pattern) {
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->search = compile(pattern, 0);
  code->whole = compile(pattern, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
  code_ = std::move(code);
}

const std::string& Regex::pattern() const {
  return code_->pattern;
}

bool Regex::search(std::string_view subject) const {
  return code_->match(code_->search.get(), subject);
}

bool Regex::fullmatch(std::string_view subject) const {
  return code_->match(code_->whole.get(), subject);
}

std::string Regex::replace(std::string_view subject, std::string_view replacement) const {
  const auto context = code_->limits();
  std::string result(subject.size() + replacement.size() + 64, '\0');
  for (;;) {
    PCRE2_SIZE length = result.size();
    const int count = pcre2_substitute(code_->search.get(), units(subject), subject.size(), 0,
                                       PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH, nullptr,
                                       context.get(), units(replacement), replacement.size(),
                                       reinterpret_cast<PCRE2_UCHAR*>(result.data()), &length);
    if (count >= 0) {
      result.resize(length);
      return result;
    }
    switch (count) {
      case PCRE2_ERROR_NOMEMORY:  // `length` now says how much is needed
        if (length <= result.size()) throw std::bad_alloc();
        result.assign(length, '\0');
        break;
      case PCRE2_ERROR_NOSUBSTRING:
      case PCRE2_ERROR_BADREPLACEMENT:
      case PCRE2_ERROR_BADREPESCAPE:
      case PCRE2_ERROR_BADSUBSTITUTION:
      case PCRE2_ERROR_REPMISSINGBRACE:
        throw Error({.name = "bad-replacement",
                     .problem = fmt::format("replacement '{}' of regular expression '{}': {}", replacement, pattern(),
                                            message(count)),
                     .advice = "Groups are $1, $2, ... or ${name}; a dollar sign is $$"});
      default:
        code_->fail(count, subject);
    }
  }
}

}  // namespace mezzotint::convert
