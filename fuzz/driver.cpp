#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "fuzz.h"
#include "mezzotint/base/error.h"

namespace mezzotint::fuzz {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kLongest = 300;  ///< seconds

struct Options {
  uint64_t files = 10'000, seed = 1, seconds = kLongest;
  std::optional<uint64_t> only;
  std::vector<fs::path> inputs;
};

std::optional<Options> parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.starts_with("--")) {
      options.inputs.emplace_back(word);
      continue;
    }
    if (i + 1 == argc) return std::nullopt;
    const uint64_t value = std::strtoull(argv[++i], nullptr, 10);
    if (word == "--files")
      options.files = value;
    else if (word == "--seed")
      options.seed = value;
    else if (word == "--seconds")
      options.seconds = value;
    else if (word == "--only")
      options.only = value;
    else
      return std::nullopt;
  }
  return options;
}

/// "ok", the name of the error, or "wrong: ..." for what must not happen.
Answer answer(const Target& target, const fs::path& file, const FileModel* model) {
  try {
    target.read(file, model);
    return "ok";
  } catch (const Error& error) {
    return std::string(error.name());
  } catch (const WrongRead& wrong) {
    return "wrong: " + wrong.what;
  } catch (const std::exception& error) {
    return std::string("wrong: ") + error.what();
  }
}

bool allowed(const Answer& found, const Answer& expected) {
  if (found.starts_with("wrong:")) return false;
  return expected.empty() || ("|" + expected + "|").find("|" + found + "|") != std::string::npos;
}

struct Case {
  FileModel model;
  Answer expected;
};

Case make_case(const Target& target, uint64_t seed, uint64_t index) {
  std::seed_seq mix{seed, seed >> 32, index, index >> 32};
  Rng rng(mix);
  Case made{target.seeds[rng() % target.seeds.size()], {}};
  const bool outer = index % 5 == 4;
  const auto& mutations = outer ? target.outer_mutations : target.header_mutations;
  const size_t count = outer || rng() % 2 ? 1 : 2 + rng() % 3;
  for (size_t i = 0; i < count && !made.model.entries.empty() && !made.model.header().empty(); ++i)
    made.expected = mutations[rng() % mutations.size()](made.model, rng);
  if (count > 1) made.expected.clear();  // one change may hide another
  return made;
}

int run(const Options& options) {
  const Target target = fuzz::target();
  int failures = 0;
  for (const auto& input : options.inputs) {
    const Answer found = answer(target, input, nullptr);
    std::printf("%s: %s\n", input.c_str(), found.c_str());
    failures += !allowed(found, "");
  }
  if (!options.inputs.empty()) return failures ? 1 : 0;

  std::string pattern = (fs::temp_directory_path() / "mezzotint-fuzz-XXXXXX").string();
  if (!mkdtemp(pattern.data())) return 1;
  const fs::path file = fs::path(pattern) / ("file" + std::string(target.suffix));
  // Stays there after a crash, as the evidence.
  std::printf("the file under test is %s\n", file.c_str());
  std::fflush(stdout);
  const auto write = [&](const std::string& bytes) {
    fs::remove(file);  // truncating instead would make some file systems wait for the disk
    std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };

  for (size_t i = 0; i < target.seeds.size(); ++i) {
    write(target.seeds[i].bytes());
    const Answer found = answer(target, file, &target.seeds[i]);
    if (found != "ok") std::printf("seed %zu: %s\n", i, found.c_str()), ++failures;
  }

  std::map<Answer, uint64_t> answers;
  const auto start = std::chrono::steady_clock::now();
  const uint64_t first = options.only.value_or(0), end = options.only ? first + 1 : options.files;
  uint64_t done = 0;
  for (uint64_t i = first; i < end && failures < 10; ++i, ++done) {
    const Case one = make_case(target, options.seed, i);
    write(one.model.bytes());
    const Answer found = answer(target, file, &one.model);
    ++answers[found];
    if (!allowed(found, one.expected)) {
      const fs::path kept = fs::path(pattern) / ("failed-" + std::to_string(i) + std::string(target.suffix));
      fs::copy_file(file, kept, fs::copy_options::overwrite_existing);
      std::printf("file %llu: expected %s, got %s; kept as %s\n", static_cast<unsigned long long>(i),
                  one.expected.c_str(), found.c_str(), kept.c_str());
      ++failures;
    }
    // A slow machine is no failure: what has to be reached may take longer.
    const bool reached = std::all_of(target.required_answers.begin(), target.required_answers.end(),
                                     [&](std::string_view name) { return answers.contains(Answer(name)); });
    const auto limit = std::chrono::seconds(reached ? options.seconds : std::max(options.seconds, kLongest));
    if (std::chrono::steady_clock::now() - start > limit) {
      std::printf("stopped after %llu seconds\n", static_cast<unsigned long long>(limit.count()));
      break;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const auto& [name, count] : answers)
    std::printf("%8llu  %s\n", static_cast<unsigned long long>(count), name.c_str());
  std::printf("%llu files in %.1f s, %d failures\n", static_cast<unsigned long long>(done), seconds, failures);
  if (!options.only)
    for (const auto name : target.required_answers)
      if (!answers.contains(Answer(name)))
        std::printf("never reached: %.*s\n", int(name.size()), name.data()), ++failures;
  if (failures == 0) fs::remove_all(pattern);
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace mezzotint::fuzz

int main(int argc, char** argv) {
  const auto options = mezzotint::fuzz::parse(argc, argv);
  if (!options) {
    std::fprintf(stderr, "usage: %s [--files N] [--seed S] [--seconds T] [--only I] [FILE...]\n", argv[0]);
    return 2;
  }
  return mezzotint::fuzz::run(*options);
}
