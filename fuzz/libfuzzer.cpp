#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "fuzz.h"
#include "mezzotint/base/error.h"

/// The entry point of libFuzzer for any target: one file from memory, by way of the disk, as a user's file would come.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mezzotint;
  static const fuzz::Target target = fuzz::target();
  static const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                            ("mezzotint-fuzz-" + std::to_string(getpid()) + std::string(target.suffix));
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    target.read(file, nullptr);
  } catch (const Error&) {
    return 0;
  } catch (const fuzz::WrongRead& wrong) {
    std::fprintf(stderr, "wrong read: %s\n", wrong.what.c_str());
    std::abort();
  }
  return 0;
}
