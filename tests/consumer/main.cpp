// What a program that links the installed library sees: the table of formats, sizes before bytes, errors by name.
#include <iostream>
#include <string_view>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/format.h"

int main() {
  using namespace mezzotint;
  for (const formats::Format* format : formats::all_formats()) {
    const formats::Selection chosen = formats::select_format(format->name);
    const formats::Description description = format->describe({.shape = {256, 512}}, chosen.options);
    if (description.layout.has_value() != format->writable) return 1;
    if (!format->writable) continue;
    std::cout << format->name << ": " << description.layout->tensors.size() << " tensors a layer\n";
  }
  try {
    formats::select_format("no-such-format");
  } catch (const Error& error) {
    return error.name() == std::string_view("unknown-format") ? 0 : 2;
  }
  return 3;
}
