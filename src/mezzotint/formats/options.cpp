#include "mezzotint/formats/options.h"

#include <cassert>
#include <charconv>

#include "mezzotint/base/error.h"

namespace mezzotint::formats {

std::string_view Options::text(std::string_view name) const {
  const auto found = values_.find(name);
  assert(found != values_.end());
  return found == values_.end() ? std::string_view{} : std::string_view(found->second);
}

int64_t Options::integer(std::string_view name) const {
  const std::string_view value = text(name);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  assert(error == std::errc{} && end == value.data() + value.size());
  (void)end;
  (void)error;
  return number;
}

std::string Options::to_text() const {
  std::string text;
  for (const auto& [name, value] : values_) text += (text.empty() ? "" : ",") + name + "=" + value;
  return text;
}

Options parse_options(std::string_view text) {
  Options options;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size())
      throw Error({.name = "bad-option",
                   .problem = "a format option must read name=value",
                   .expected = "name=value[,name=value...]",
                   .found = "'" + std::string(item) + "'"});
    const std::string_view name = item.substr(0, equals);
    if (options.has(name))
      throw Error({.name = "bad-option", .problem = "the format option '" + std::string(name) + "' is given twice"});
    options.set(name, item.substr(equals + 1));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) throw Error({.name = "bad-option", .problem = "format options end with a comma"});
  }
  return options;
}

}  // namespace mezzotint::formats
