#include <sstream>

#include "convert/interruption.h"
#include "convert/recordings.h"

// Interruptions of conversions whose layers are rounded with feedback.
namespace mezzotint::convert {
namespace {

using test::RawFile;

class ResumeFeedback : public Resume {
 protected:
  /// X'X of every layer of long_model(); each layer has its own.
  std::string record(const std::string& name = "calibration.safetensors") {
    RawFile file;
    file.metadata["mezzotint_calibration"] = "1";
    for (int block = 0; block < 12; ++block)
      test::add_recording(file, "blocks." + std::to_string(block) + ".q", test::make_inputs(rng_, 300, 64, 1 + block),
                          true);
    const std::string path = (beside_ / name).string();
    test::write_raw(path, file);
    return path;
  }
  /// Weights that an interrupted run has finished, by the names of their layers.
  std::set<std::string> finished(const ConvertOptions& options) const {
    const auto model = checkpoint::Model::open(in());
    const Plan made = make_plan(model, out(), options, 1);
    std::set<std::string> names;
    std::istringstream lines(file_bytes(journal()));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("row ")) continue;
      const PlanRow& row = made.rows.at(std::stoul(line.substr(4)));
      if (row.method.objective) names.insert(row.name);
    }
    return names;
  }
  /// Where the codes of a layer lie in the output.
  size_t offset_of_codes(const std::string& bytes, const std::string& layer) const {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof size);
    const auto header = nlohmann::json::parse(bytes.substr(8, size));
    return 8 + size + header.at(layer + ".weight").at("data_offsets").at(0).get<size_t>();
  }
  Outcome resume_measured(const ConvertOptions& options, int threads) {
    const auto model = checkpoint::Model::open(in());
    return execute(make_plan(model, out(), options, threads), model, {.resume = true, .measure = true});
  }

  std::mt19937_64 rng_ = test::test_rng();
  test::TemporaryFolder beside_;
};

TEST_F(ResumeFeedback, GivesTheBytesOfAnUndisturbedRunAndOptimizesNoLayerTwice) {
  const RawFile file = long_model(rng_);
  const std::string recording = record();
  std::set<std::string> outputs;
  size_t runs = 0;
  for (const std::string to : {"float8_e4m3fn", "nvfp4", "int8_convrot"})
    for (const int effort : {2, 3})
      for (const bool calibrated : {false, true}) {
        ConvertOptions options{.to = to, .effort = effort};
        if (calibrated) options.calibration = {recording};
        convert(file, options, 1);
        const std::string expected = file_bytes(out());
        outputs.insert(expected);
        ++runs;
        for (const int threads : {1, 2}) {
          SCOPED_TRACE(testing::Message()
                       << to << " effort " << effort << (calibrated ? " with data, " : ", ") << threads << " threads");
          convert(options, threads);
          EXPECT_TRUE(file_bytes(out()) == expected) << "threads";
          std::filesystem::remove(out());

          interrupt(options, 0.3, threads);
          const std::set<std::string> first = finished(options);
          EXPECT_GT(first.size(), 1u);
          interrupt(options, 0.7, threads, true);
          const std::set<std::string> second = finished(options);
          EXPECT_GT(second.size(), first.size());
          EXPECT_LT(second.size(), 11u);

          const Outcome outcome = resume_measured(options, threads);
          EXPECT_TRUE(file_bytes(out()) == expected) << "resumed";
          EXPECT_EQ(names_in_folder().size(), 2u);
          // Every layer is optimized, and none of those that were finished is once more.
          std::set<std::string> now;
          for (const MeasuredLayer& layer : outcome.layers) {
            EXPECT_TRUE(layer.objective_ratio.has_value()) << layer.name;
            EXPECT_FALSE(second.contains(layer.name)) << layer.name;
            now.insert(layer.name);
          }
          EXPECT_EQ(now.size() + second.size(), 12u);
          std::filesystem::remove(out());
        }
      }
  EXPECT_EQ(outputs.size(), runs) << "efforts and data that change nothing prove nothing";
}

TEST_F(ResumeFeedback, LeavesTheBytesOfFinishedLayersAlone) {
  const ConvertOptions options{.effort = 2};
  std::string expected = undisturbed(long_model(rng_), options);
  interrupt(options, 0.5, 2);
  const std::set<std::string> done = finished(options);
  ASSERT_GT(done.size(), 2u);
  ASSERT_LT(done.size(), 11u);
  // A byte that no optimizer would write there, in a layer that is done and in one that is not.
  std::string unfinished;
  for (int block = 0; block < 12 && unfinished.empty(); ++block)
    if (const std::string name = "blocks." + std::to_string(block) + ".q"; !done.contains(name)) unfinished = name;
  std::fstream bytes(partial(), std::ios::binary | std::ios::in | std::ios::out);
  const size_t kept = offset_of_codes(expected, *done.begin()) + 77;
  const size_t lost = offset_of_codes(expected, unfinished) + 77;
  for (const size_t at : {kept, lost}) {
    bytes.seekp(static_cast<std::streamoff>(at));
    bytes.put(static_cast<char>(expected[at] ^ 0x55));
  }
  bytes.close();
  resume(options, 2);
  expected[kept] = static_cast<char>(expected[kept] ^ 0x55);
  EXPECT_TRUE(file_bytes(out()) == expected);
}

// The recording ends in the middle of X'X of a layer: that layer's Hessian is half made.
TEST_F(ResumeFeedback, AfterAnErrorInTheMiddleOfALayer) {
  const std::string recording = record();
  const ConvertOptions options{.to = "nvfp4", .effort = 3, .calibration = {recording}};
  for (const int threads : {1, 2}) {
    const std::string expected = undisturbed(long_model(rng_), options);
    const std::string whole = file_bytes(recording);
    const auto written = std::filesystem::last_write_time(recording);
    const auto model = checkpoint::Model::open(in());
    const Plan made = make_plan(model, out(), options, threads);
    std::filesystem::resize_file(recording, static_cast<uintmax_t>(0.6 * static_cast<double>(whole.size())));
    EXPECT_EQ(error_of([&] { execute(made, model, {}); }), "file-changed");
    std::ofstream(recording, std::ios::binary) << whole;
    std::filesystem::last_write_time(recording, written);
    EXPECT_GT(finished(options).size(), 2u);
    EXPECT_LT(finished(options).size(), 11u);
    EXPECT_GT(resume(options, threads).rows_resumed, 4u);
    EXPECT_TRUE(file_bytes(out()) == expected);
    EXPECT_EQ(names_in_folder().size(), 2u);
  }
}

TEST_F(ResumeFeedback, RefusesOtherOptimizersAndRecordings) {
  const std::string recording = record(), other = record("other.safetensors");
  const ConvertOptions options{.effort = 2, .calibration = {recording}};
  const std::string expected = undisturbed(long_model(rng_), options);
  interrupt(options, 0.5, 2);
  for (const ConvertOptions& changed : {ConvertOptions{.effort = 2}, ConvertOptions{.calibration = {recording}},
                                        ConvertOptions{.effort = 3, .calibration = {recording}},
                                        ConvertOptions{.effort = 2, .optimizer = "plain", .calibration = {recording}},
                                        ConvertOptions{.effort = 2, .calibration = {other}}})
    EXPECT_EQ(error_of([&] { resume(changed, 2); }), "resume-mismatch");
  EXPECT_GT(resume(options, 1).rows_resumed, 4u);
  EXPECT_TRUE(file_bytes(out()) == expected);
}

}  // namespace
}  // namespace mezzotint::convert
