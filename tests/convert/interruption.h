#pragma once
#include "convert/conversion.h"
#include "mezzotint/convert/journal.h"
#include "mezzotint/io/writer.h"

/// Conversions that are interrupted and go on.
namespace mezzotint::convert {

class Resume : public Conversion {
 protected:
  std::filesystem::path partial() const { return io::partial_path(out()); }
  std::filesystem::path journal() const { return Journal::path_for(out()); }

  /// Runs into the end of a file that was cut at `share` of its size, then mends the file.
  void interrupt(const ConvertOptions& options, double share, int threads, bool resume = false) {
    const std::string whole = file_bytes(in());
    const auto written = std::filesystem::last_write_time(in());
    const auto model = checkpoint::Model::open(in());
    const Plan made = make_plan(model, out(), options, threads);
    std::filesystem::resize_file(in(), static_cast<uintmax_t>(share * static_cast<double>(whole.size())));
    EXPECT_EQ(error_of([&] { execute(made, model, {.resume = resume}); }), "file-changed");
    std::ofstream(in(), std::ios::binary) << whole;
    std::filesystem::last_write_time(in(), written);
    EXPECT_FALSE(std::filesystem::exists(out()));
    EXPECT_TRUE(std::filesystem::exists(partial()));
    EXPECT_TRUE(std::filesystem::exists(journal()));
  }
  Outcome resume(const ConvertOptions& options, int threads) {
    const auto model = checkpoint::Model::open(in());
    return execute(make_plan(model, out(), options, threads), model, {.resume = true});
  }
  /// Neither threads nor memory change a byte. Leaves no output behind.
  void expect_same_bytes(ConvertOptions options, const std::string& expected) {
    for (const int threads : {1, 3})
      for (const uint64_t memory : {uint64_t{1} << 30, uint64_t{1} << 20}) {
        options.max_memory = memory;
        convert(options, threads);
        EXPECT_TRUE(file_bytes(out()) == expected) << threads << " " << memory;
        std::filesystem::remove(out());
      }
  }
  /// Bytes of an undisturbed run; leaves no output behind.
  std::string undisturbed(const test::RawFile& file, const ConvertOptions& options) {
    convert(file, options);
    const std::string bytes = file_bytes(out());
    std::filesystem::remove(out());
    return bytes;
  }
};

inline test::RawFile long_model(std::mt19937_64& rng) {
  test::RawFile file;
  for (int block = 0; block < 12; ++block) {
    file.tensors.emplace_back("blocks." + std::to_string(block) + ".q.weight", weight(rng, {64, 64}));
    file.tensors.emplace_back("blocks." + std::to_string(block) + ".norm.weight", weight(rng, {64}));
  }
  return file;
}

}  // namespace mezzotint::convert
