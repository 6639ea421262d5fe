#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/base/dtype.h"

/// Fuzzing of everything that reads files. A target is one file in fuzz/targets; it becomes the program fuzz_NAME,
/// which mutates the target's seeds and fails unless each file is refused with an Error or read correctly.
///
///   fuzz_read_file [--files N] [--seed S] [--seconds T] [--only I] [FILE...]
///
/// File I of a run depends on nothing but the seed and I, so `--only I` repeats it. A run ends after N files, or after
/// T seconds if it has reached by then what it must; else it goes on, to 300 seconds at most. FILEs are read instead,
/// for files that another fuzzer found: every target also has LLVMFuzzerTestOneInput, for a build with
/// clang++ -fsanitize=fuzzer that leaves out driver.cpp.
namespace mezzotint::fuzz {

using Rng = std::mt19937_64;

/// A header entry as JSON text, so that mutations can write anything there, and what it said at first.
struct Entry {
  struct Field {
    std::string name, value;  ///< JSON text, the name with its quotes
  };
  std::string key;  ///< JSON text with its quotes
  std::vector<Field> fields;
  std::string whole;  ///< JSON text in place of the object of the fields, if not empty

  std::string name;
  DType dtype = DType::u8;
  Shape shape;
  uint64_t begin = 0, end = 0;  ///< in the data buffer
  bool touched = false;         ///< a mutation changed what the entry says

  Field* field(std::string_view quoted_name);
};

/// A safetensors file in pieces.
struct FileModel {
  std::vector<Entry> entries;
  std::vector<Entry::Field> top;  ///< other members of the header, e.g. "__metadata__"; written first
  std::string before, after;      ///< text around the header's object
  std::string data;
  std::optional<uint64_t> length;   ///< in place of the true header length
  std::optional<std::string> text;  ///< the header, once it is mutated as text
  std::optional<uint64_t> cut;      ///< bytes that are left of the file

  /// Adds a tensor behind the others.
  void add(std::string_view name, DType dtype, Shape shape, std::string_view bytes);
  /// Gives an entry another content; everything else stays, in the same order. The entry counts as touched.
  void replace(size_t index, DType dtype, const Shape& shape, const std::string& bytes);
  /// Leaves an entry out.
  void remove(size_t index);
  std::string header() const;
  std::string bytes() const;
  void touch_all();
  /// Turns the header into text; `at` of it will change: entries near it count as touched.
  std::string& as_text(size_t at);
  size_t entry_with_data(Rng& rng) const;  ///< a random one that is not empty
  size_t last() const;                     ///< the one whose data ends last, the longer one among equals
};

std::string quote(std::string_view text);

/// What reading must answer: "ok", the name of an error, several of these separated by '|', or "" for any.
using Answer = std::string;
using Mutation = Answer (*)(FileModel&, Rng&);

/// Changes to the header (four fifths of the files) and to length bytes and data (the rest).
std::vector<Mutation> header_mutations();
std::vector<Mutation> outer_mutations();

/// Thrown by a target that read something wrong.
struct WrongRead {
  std::string what;
};

/// What a target file defines.
struct Target {
  std::string_view suffix;  ///< of the file's name
  std::vector<FileModel> seeds;
  std::vector<Mutation> header_mutations, outer_mutations;
  std::vector<std::string_view> required_answers;  ///< each must come up in a full run
  /// Reads the file and everything in it. Throws mezzotint::Error where it is refused, WrongRead where what was read is
  /// not what the bytes say. Tensors of `model` that were not touched must come back; it is null for files from
  /// outside.
  std::function<void(const std::filesystem::path& file, const FileModel* model)> read;
};
Target target();

}  // namespace mezzotint::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
