#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "convert/interruption.h"

namespace mezzotint::convert {
namespace {

using test::RawFile;
using test::test_rng;

TEST_F(Resume, GivesTheBytesOfAnUndisturbedRun) {
  auto rng = test_rng();
  const RawFile file = long_model(rng);
  for (const ConvertOptions& options :
       {ConvertOptions{.to = "float8_e4m3fn"},
        ConvertOptions{.to = "int8_row", .rounding = Rounding::Mode::stochastic, .seed = 3},
        ConvertOptions{.to = "float8_e5m2", .max_shard_bytes = 1 << 20}})
    for (const int threads : {1, 4}) {
      const std::string expected = undisturbed(file, options);
      interrupt(options, 0.3, threads);
      interrupt(options, 0.7, threads, true);
      const Outcome outcome = resume(options, threads);
      EXPECT_GT(outcome.rows_resumed, 8u);
      EXPECT_LT(outcome.rows_resumed, 24u);
      EXPECT_FALSE(outcome.cancelled);
      EXPECT_TRUE(file_bytes(out()) == expected);
      EXPECT_EQ(names_in_folder().size(), 2u);
      std::filesystem::remove(out());
    }
}

TEST_F(Resume, OfAShardedOutput) {
  auto rng = test_rng();
  const ConvertOptions options{.max_shard_bytes = 20 << 10};
  test::write_raw(in(), long_model(rng));
  convert(options);
  ASSERT_GT(plan_.layout.files.size(), 2u);
  std::vector<std::string> expected;
  for (const auto& file : plan_.layout.files) {
    expected.push_back(file_bytes(file.path));
    std::filesystem::remove(file.path);
  }
  std::filesystem::remove(plan_.layout.index_path);
  const auto model = checkpoint::Model::open(in());
  const std::string whole = file_bytes(in());
  const auto written = std::filesystem::last_write_time(in());
  std::filesystem::resize_file(in(), whole.size() / 2);
  EXPECT_EQ(error_of([&] { execute(plan_, model, {}); }), "file-changed");
  std::ofstream(in(), std::ios::binary) << whole;
  std::filesystem::last_write_time(in(), written);
  EXPECT_GT(resume(options, 2).rows_resumed, 5u);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(file_bytes(plan_.layout.files[i].path) == expected[i]) << i;
}

TEST_F(Resume, WithNothingToResumeStartsOver) {
  auto rng = test_rng();
  const std::string expected = undisturbed(long_model(rng), {});
  EXPECT_EQ(resume({}, 2).rows_resumed, 0u);
  EXPECT_TRUE(file_bytes(out()) == expected);
}

TEST_F(Resume, RefusesAnotherInputOrOtherOptions) {
  auto rng = test_rng();
  const std::string expected = undisturbed(long_model(rng), {});
  interrupt({}, 0.5, 2);
  const std::string before = file_bytes(partial()), rows = file_bytes(journal());
  for (const ConvertOptions& other :
       {ConvertOptions{.to = "int8"}, ConvertOptions{.seed = 1}, ConvertOptions{.exclude = {"q"}},
        ConvertOptions{.full_precision_matrix_mult = true}, ConvertOptions{.max_shard_bytes = 20 << 10}})
    EXPECT_EQ(error_of([&] { resume(other, 2); }), "resume-mismatch");
  const auto written = std::filesystem::last_write_time(in());
  std::filesystem::last_write_time(in(), written + std::chrono::seconds(1));
  EXPECT_EQ(error_of([&] { resume({}, 2); }), "resume-mismatch");
  std::filesystem::last_write_time(in(), written);
  EXPECT_TRUE(file_bytes(partial()) == before && file_bytes(journal()) == rows) << "a refusal must lose nothing";
  EXPECT_GT(resume({.max_memory = 1 << 20}, 5).rows_resumed, 5u);  // what decides no byte may change
  EXPECT_TRUE(file_bytes(out()) == expected);
}

TEST_F(Resume, APartialFileThatIsNotOursIsRefused) {
  auto rng = test_rng();
  test::write_raw(in(), long_model(rng));
  interrupt({}, 0.5, 2);
  std::string other = file_bytes(partial());
  other[20] ^= 1;
  std::ofstream(partial(), std::ios::binary) << other;
  EXPECT_EQ(error_of([&] { resume({}, 2); }), "partial-mismatch");
  std::filesystem::remove(partial());
  EXPECT_EQ(resume({}, 2).rows_resumed, 0u);
}

TEST_F(Resume, AfterARestartOfTheMachineOnlySyncedRowsAreTrusted) {
  auto rng = test_rng();
  const std::string expected = undisturbed(long_model(rng), {});
  interrupt({}, 0.6, 2);
  std::string text = file_bytes(journal());
  text.replace(text.find("boot ") + 5, 4, "0000");
  std::ofstream(journal(), std::ios::binary) << text;
  // What was not synced may be gone: everything behind the header.
  std::fstream file(partial(), std::ios::binary | std::ios::in | std::ios::out);
  const auto size = static_cast<size_t>(std::filesystem::file_size(partial()));
  uint64_t header = 0;
  file.read(reinterpret_cast<char*>(&header), 8);
  file.seekp(static_cast<std::streamoff>(8 + header));
  file << std::string(size - 8 - header, '\xee');
  file.close();
  EXPECT_EQ(resume({}, 2).rows_resumed, 0u);
  EXPECT_TRUE(file_bytes(out()) == expected);
}

TEST_F(Resume, ARestartedRunDoesNotTrustAnOlderJournal) {
  auto rng = test_rng();
  const std::string expected = undisturbed(long_model(rng), {});
  interrupt({}, 0.8, 1);
  const std::string old_rows = file_bytes(journal());
  // A new run from the start, which gets nowhere: its .partial file is empty, so the old rows are gone with it.
  interrupt({}, 0.05, 1);
  EXPECT_LT(file_bytes(journal()).size(), old_rows.size());
  EXPECT_LE(resume({}, 1).rows_resumed, 1u);
  EXPECT_TRUE(file_bytes(out()) == expected);
}

TEST_F(Resume, AfterCancelling) {
  auto rng = test_rng();
  const RawFile file = long_model(rng);
  const ConvertOptions options{.rounding = Rounding::Mode::stochastic};
  const std::string expected = undisturbed(file, options);
  const auto model = checkpoint::Model::open(in());
  const Plan made = make_plan(model, out(), options, 2);

  std::atomic<bool> cancel{true};
  Outcome outcome = execute(made, model, {.cancel = &cancel});
  EXPECT_TRUE(outcome.cancelled);
  EXPECT_FALSE(std::filesystem::exists(out()));
  // Cancelled again and again, always a row later, a run gets there all the same.
  size_t rounds = 0, before = 0;
  for (; outcome.cancelled && rounds < 40; ++rounds) {
    cancel = false;
    std::atomic<bool> ended{false};
    std::thread canceller([&] {
      while (!ended) {
        const std::string text = file_bytes(journal());  // empty while there is none
        size_t rows = 0;
        for (size_t at = text.find("\nrow "); at != std::string::npos; at = text.find("\nrow ", at + 1)) ++rows;
        if (rows > rounds) cancel = true;
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    });
    outcome = execute(made, model, {.resume = true, .cancel = &cancel});
    ended = true;
    canceller.join();
    EXPECT_GE(outcome.rows_resumed, before);
    before = outcome.rows_resumed;
  }
  EXPECT_FALSE(outcome.cancelled);
  EXPECT_TRUE(file_bytes(out()) == expected);
  EXPECT_EQ(names_in_folder().size(), 2u);
}

// --- memory
// -----------------------------------------------------------------------------------------------------------

/// Peak growth of a child process that converts the file, in bytes.
uint64_t measured_growth(const std::filesystem::path& in, const std::filesystem::path& out,
                         const ConvertOptions& options, int threads, uint64_t& stated) {
  int pipes[2];
  if (pipe(pipes) != 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const long before = usage.ru_maxrss;
    uint64_t result[2] = {~uint64_t{0}, 0};
    try {
      const auto model = checkpoint::Model::open(in);
      const Plan plan = make_plan(model, out, options, threads);
      execute(plan, model, {.overwrite = true});
      getrusage(RUSAGE_SELF, &usage);
      result[0] = static_cast<uint64_t>(usage.ru_maxrss - before) * 1024;
      result[1] = plan.peak_memory;
    } catch (const std::exception&) {
    }
    const bool sent = write(pipes[1], result, sizeof result) == sizeof result;
    _exit(sent ? 0 : 1);
  }
  uint64_t result[2] = {~uint64_t{0}, 0};
  const bool received = read(pipes[0], result, sizeof result) == sizeof result;
  int status = 0;
  waitpid(child, &status, 0);
  close(pipes[0]);
  close(pipes[1]);
  EXPECT_TRUE(received && status == 0 && result[0] != ~uint64_t{0});
  stated = result[1];
  return result[0];
}

/// Weights of holes: as many bytes as wanted, none on disk.
void write_holes(const std::filesystem::path& path, int blocks, int64_t rows, int64_t cols) {
  nlohmann::json header;
  uint64_t offset = 0;
  for (int block = 0; block < blocks; ++block) {
    const auto bytes = static_cast<uint64_t>(rows * cols) * 2;
    header["blocks." + std::to_string(block) + ".q.weight"] = {
        {"dtype", "BF16"}, {"shape", {rows, cols}}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(&size), 8) << text;
  std::filesystem::resize_file(path, 8 + size + offset);
}

TEST_F(Resume, PeakMemoryIsAsStatedAndDoesNotGrowWithTheModel) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer's own memory is several times what is measured";
#endif
  for (const std::string to : {"float8_e4m3fn", "int8_row", "int8_blockwise"}) {
    uint64_t growth[2] = {}, stated[2] = {};
    for (const int large : {0, 1}) {
      write_holes(in(), large ? 12 : 2, 2048, 4096);  // 192 or 32 MiB
      growth[large] = measured_growth(in(), out(), {.to = to}, 4, stated[large]);
      EXPECT_LE(growth[large], stated[large]) << to;
    }
    EXPECT_LT(stated[1], 48u << 20);
    EXPECT_LE(stated[1], stated[0] + (256 << 10)) << to;
    EXPECT_LE(growth[1], growth[0] + (16 << 20)) << to;  // the model grew by 160 MiB
  }
  // Headers count too.
  write_holes(in(), 20'000, 16, 16);
  uint64_t stated = 0;
  const uint64_t growth = measured_growth(in(), out(), {.to = "float8_e4m3fn"}, 2, stated);
  EXPECT_LE(growth, stated);
  EXPECT_GT(growth, stated / 8) << "a bound that says nothing";
}

}  // namespace
}  // namespace mezzotint::convert
