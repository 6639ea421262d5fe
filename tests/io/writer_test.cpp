#include "mezzotint/io/writer.h"

#include <sys/stat.h>

#include <random>
#include <thread>

#include "io/io_support.h"
#include "mezzotint/io/reader.h"
#include "support/seed.h"

namespace mezzotint::io {
namespace {
namespace fs = std::filesystem;
using test::expect_error;
using test::get_file;
using test::put_file;
using test::TempFolder;
using testing::HasSubstr;
using Mode = Writer::Mode;

const std::vector<TensorSpec> kTwo = {{"u", DType::u8, {3}}, {"f", DType::f32, {2}}};

void write_two(Writer& writer) {
  writer.write(0, 0, "abc", 3);
  writer.write(1, 4, "5678", 4);
  writer.write(1, 0, "1234", 4);
}

void put_two(const fs::path& path, bool overwrite = false) {
  Writer writer(plan_output(path, kTwo, {}), Mode::create, overwrite);
  write_two(writer);
  writer.commit();
}

/// The bytes that kTwo must give, by hand: widest dtype first, header padded to 8 by a space.
const std::string kTwoFile = std::string("\x70\0\0\0\0\0\0\0", 8) +
                             R"({"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("u":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}     )" +
                             "12345678abc";

std::vector<std::string> listing(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(Plan, GivesTheBytesOfAFileByHand) {
  const TempFolder folder;
  put_two(folder / "m.safetensors");
  EXPECT_EQ(get_file(folder / "m.safetensors"), kTwoFile);
  EXPECT_THAT(listing(folder.path()), testing::ElementsAre("m.safetensors"));
}

TEST(Plan, MetadataComesFirstAndIsEscaped) {
  OutputOptions options;
  options.metadata = {{"z\"\\", "a\nb\x01/\xc3\xa9"}, {"a", ""}};
  const auto plan = plan_output("m.safetensors", {}, options);
  const std::string json = R"({"__metadata__":{"z\"\\":"a\nb\u0001/)" + std::string("\xc3\xa9") + R"(","a":""}})";
  ASSERT_EQ(plan.files.size(), 1u);
  EXPECT_EQ(plan.files[0].header.substr(8, json.size()), json);
  EXPECT_EQ(plan.files[0].header.size() % 8, 0u);
  EXPECT_EQ(plan.files[0].bytes, plan.files[0].header.size());
  const TempFolder folder;
  put_file(folder / "m", plan.files[0].header);
  EXPECT_EQ(Source::open(folder / "m").metadata(), options.metadata);
}

TEST(Plan, DataIsAlignedAndInTheOrderOfDtypes) {
  std::vector<TensorSpec> specs;
  for (const auto& dtype : all_dtypes())
    for (const int64_t dim : {8, 0, 24})
      specs.push_back({std::string(dtype.name) + std::to_string(dim), dtype.dtype, {dim}});
  std::reverse(specs.begin(), specs.end());
  specs.push_back({"odd", DType::u8, {3}});
  const auto plan = plan_output("m", specs, {});
  ASSERT_EQ(plan.tensors.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    EXPECT_EQ(plan.tensors[i].name, specs[i].name);
    EXPECT_EQ(plan.tensors[i].offset % std::max(1u, facts(specs[i].dtype).bits / 8), 0u) << specs[i].name;
    for (size_t k = 0; k < i; ++k) {
      const uint64_t earlier = plan.tensors[k].offset, later = plan.tensors[i].offset;
      EXPECT_TRUE(specs[k].dtype <= specs[i].dtype ? earlier <= later : earlier >= later)
          << specs[k].name << " and " << specs[i].name;
    }
  }
}

TEST(Plan, RefusesWhatNoFileCanHold) {
  const auto plan = [](std::vector<TensorSpec> specs, Metadata metadata = {}) {
    return [=] { plan_output("m", specs, {.metadata = metadata}); };
  };
  expect_error("duplicate-tensor", plan({{"a", DType::u8, {1}}, {"b", DType::u8, {1}}, {"a", DType::f32, {}}}));
  expect_error("bad-name", plan({{"a\xff", DType::u8, {1}}}));
  expect_error("bad-name", plan({{"__metadata__", DType::u8, {1}}}));
  expect_error("bad-name", plan({}, {{"k", "\xc0\x80"}}));
  expect_error("duplicate-metadata", plan({}, {{"k", "1"}, {"k", "2"}}));
  expect_error("bad-shape", plan({{"a", DType::u8, {-1}}}));
  expect_error("bad-shape", plan({{"a", DType::f32, {int64_t{1} << 61}}}));
  expect_error("bad-shape", plan({{"a", DType::f4, {3}}}));
  expect_error("header-too-large", plan({}, {{"k", std::string(100'000'000, 'x')}}));
}

/// Random tensors, written in random pieces by several threads, read back.
TEST(Writer, RandomFilesComeBack) {
  auto rng = test::test_rng();
  const TempFolder folder;
  for (int round = 0; round < 20; ++round) {
    std::vector<TensorSpec> specs;
    std::vector<std::string> data;
    OutputOptions options;
    for (size_t i = rng() % 12; i-- > 0;) {
      const auto& dtype = all_dtypes()[rng() % all_dtypes().size()];
      Shape shape;
      for (size_t rank = rng() % 4; rank-- > 0;) shape.push_back(static_cast<int64_t>(rng() % 3 * 4));
      shape.push_back(8);
      specs.push_back({"t" + std::to_string(i) + (rng() % 2 ? "\n\"" : "\xf0\x9f\x98\x80"), dtype.dtype, shape});
      data.emplace_back(*byte_count(dtype.dtype, shape), '\0');
      for (char& byte : data.back()) byte = static_cast<char>(rng());
    }
    for (size_t i = rng() % 4; i-- > 0;)
      options.metadata.emplace_back("k" + std::to_string(i), std::string(i * 9, '\\'));
    if (round % 2) options.max_shard_bytes = 600;
    const std::string name = "m" + std::to_string(round) + ".safetensors";
    Writer writer(plan_output(folder / name, specs, options), Mode::create, false);
    {
      std::vector<std::jthread> threads;
      for (size_t t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
          for (size_t i = 0; i < specs.size(); ++i)
            for (size_t at = t * 5; at < data[i].size(); at += 15)
              writer.write(i, at, data[i].data() + at, std::min<size_t>(5, data[i].size() - at));
        });
    }
    writer.commit();
    const bool sharded = !writer.plan().index_json.empty();
    const auto source = Source::open(sharded ? folder / (name + ".index.json") : folder / name);
    EXPECT_EQ(source.tensors().size(), specs.size());
    EXPECT_EQ(source.metadata(), options.metadata);
    for (size_t i = 0; i < specs.size(); ++i) {
      const size_t found = source.find(specs[i].name);
      ASSERT_NE(found, Source::npos);
      EXPECT_EQ(source.tensors()[found].dtype, specs[i].dtype);
      EXPECT_EQ(source.tensors()[found].shape, specs[i].shape);
      EXPECT_EQ(source.tensors()[found].offset, writer.plan().tensors[i].offset);
      const auto bytes = source.read_all(found);
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), data[i]);
    }
    for (const auto& file : writer.plan().files) {
      EXPECT_EQ(fs::file_size(file.path), file.bytes);
      size_t members = 0;
      for (const auto& tensor : source.tensors()) members += source.files()[tensor.file] == file.path;
      EXPECT_TRUE(options.max_shard_bytes == 0 || members <= 1 || file.bytes <= options.max_shard_bytes) << file.bytes;
    }
  }
}

TEST(Writer, ShardsAndTheirIndex) {
  const TempFolder folder;
  const std::vector<TensorSpec> specs = {
      {"b", DType::u8, {4}}, {"a", DType::f32, {1}}, {"large", DType::u8, {900}}, {"z", DType::u8, {1}}};
  const auto plan = plan_output(folder / "m.safetensors", specs, {.max_shard_bytes = 300});
  Writer writer(plan, Mode::create, false);
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::string data(plan.tensors[i].bytes, static_cast<char>('0' + i));
    writer.write(i, 0, data.data(), data.size());
  }
  EXPECT_THAT(listing(folder.path()), testing::Each(testing::EndsWith(".partial")));
  writer.commit();
  EXPECT_THAT(listing(folder.path()),
              testing::ElementsAre("m-00001-of-00003.safetensors", "m-00002-of-00003.safetensors",
                                   "m-00003-of-00003.safetensors", "m.safetensors.index.json"));
  EXPECT_EQ(get_file(folder / "m.safetensors.index.json"), R"({
  "metadata": {
    "total_size": 909
  },
  "weight_map": {
    "a": "m-00001-of-00003.safetensors",
    "b": "m-00001-of-00003.safetensors",
    "large": "m-00002-of-00003.safetensors",
    "z": "m-00003-of-00003.safetensors"
  }
}
)");
  uint64_t total = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) total += fs::file_size(entry.path());
  EXPECT_EQ(plan.total_bytes, total);
  const auto source = Source::open(folder / "m.safetensors.index.json");
  EXPECT_EQ(source.read_all(source.find("a")), (std::vector<std::byte>(4, std::byte{'1'})));
}

TEST(Writer, NothingHasTheFinalNameBeforeCommit) {
  const TempFolder folder;
  {
    Writer writer(plan_output(folder / "m", kTwo, {}), Mode::create, false);
    write_two(writer);
    writer.sync();
    EXPECT_FALSE(fs::exists(folder / "m"));
    EXPECT_EQ(fs::file_size(folder / "m.partial"), kTwoFile.size());
  }
  EXPECT_THAT(listing(folder.path()), testing::ElementsAre("m.partial")) << "an abandoned run can be resumed";
  Writer again(plan_output(folder / "m", kTwo, {}), Mode::create, false);
  again.discard();
  EXPECT_TRUE(listing(folder.path()).empty());
}

TEST(Writer, ResumesWhatAnEarlierRunWrote) {
  const TempFolder folder;
  const auto plan = plan_output(folder / "m", kTwo, {});
  expect_error("partial-missing", [&] { Writer(plan, Mode::resume, false); });
  EXPECT_TRUE(listing(folder.path()).empty());
  Writer(plan, Mode::create, false).write(1, 0, "12345678", 8);
  Writer rest(plan, Mode::resume, false);
  rest.write(0, 0, "abc", 3);
  rest.commit();
  EXPECT_EQ(get_file(folder / "m"), kTwoFile);
}

TEST(Writer, ResumesOnlyTheSamePlan) {
  const TempFolder folder;
  const auto plan = plan_output(folder / "m", kTwo, {});
  Writer(plan, Mode::create, false).write(1, 0, "12345678", 8);
  const std::string before = get_file(folder / "m.partial");
  const auto other_size = plan_output(folder / "m", {{"u", DType::u8, {4}}, {"f", DType::f32, {2}}}, {});
  expect_error("partial-mismatch", [&] { Writer(other_size, Mode::resume, false); });
  const auto other_name = plan_output(folder / "m", {{"v", DType::u8, {3}}, {"f", DType::f32, {2}}}, {});
  ASSERT_EQ(other_name.files[0].bytes, plan.files[0].bytes);
  expect_error("partial-mismatch", [&] { Writer(other_name, Mode::resume, false); });
  EXPECT_EQ(get_file(folder / "m.partial"), before);
}

TEST(Writer, AnExistingOutputNeedsLeave) {
  const TempFolder folder;
  put_file(folder / "m", "precious");
  expect_error("output-exists", [&] { Writer(plan_output(folder / "m", kTwo, {}), Mode::create, false); });
  EXPECT_THAT(listing(folder.path()), testing::ElementsAre("m"));
  {
    Writer abandoned(plan_output(folder / "m", kTwo, {}), Mode::create, true);
    write_two(abandoned);
  }
  EXPECT_EQ(get_file(folder / "m"), "precious") << "only commit() may replace it";
  put_two(folder / "m", true);
  EXPECT_EQ(get_file(folder / "m"), kTwoFile);
}

TEST(Writer, AnOutputThatAppearsMeanwhileIsKept) {
  const TempFolder folder;
  Writer writer(plan_output(folder / "m", kTwo, {}), Mode::create, false);
  write_two(writer);
  put_file(folder / "m", "precious");
  expect_error("output-exists", [&] { writer.commit(); });
  EXPECT_EQ(get_file(folder / "m"), "precious");
}

TEST(Writer, ASecondRunIsKeptOut) {
  const TempFolder folder;
  const auto plan = plan_output(folder / "m", kTwo, {});
  Writer first(plan, Mode::create, false);
  first.write(1, 0, "12345678", 8);
  expect_error("output-busy", [&] { Writer(plan, Mode::create, false); });
  expect_error("output-busy", [&] { Writer(plan, Mode::resume, false); });
  first.write(0, 0, "abc", 3);
  first.commit();
  EXPECT_EQ(get_file(folder / "m"), kTwoFile);
}

TEST(Writer, ALinkStaysALink) {
  const TempFolder folder;
  fs::create_directories(folder / "real");
  fs::create_symlink("real/target", folder / "m");
  put_two(folder / "m");  // dangles at first
  EXPECT_TRUE(fs::is_symlink(folder / "m"));
  EXPECT_EQ(get_file(folder / "real" / "target"), kTwoFile);
  put_file(folder / "real" / "target", "precious");
  expect_error("output-exists", [&] { put_two(folder / "m"); });
  put_two(folder / "m", true);
  EXPECT_TRUE(fs::is_symlink(folder / "m"));
  EXPECT_EQ(get_file(folder / "real" / "target"), kTwoFile);
  EXPECT_EQ(partial_path(folder / "m"), fs::path(folder / "real/target.partial"));
  fs::create_symlink("loop", folder / "loop");
  expect_error("link-loop", [&] { put_two(folder / "loop"); });
}

TEST(Writer, PermissionsAreThoseOfAnyNewFile) {
  const TempFolder folder;
  for (const mode_t mask : {mode_t{022}, mode_t{077}, mode_t{0}}) {
    const mode_t before = umask(mask);
    put_two(folder / "m", true);
    umask(before);
    struct stat facts;
    ASSERT_EQ(stat((folder / "m").c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0666 & ~mask);
  }
}

TEST(Writer, SameFileSeesThroughLinks) {
  const TempFolder folder;
  put_file(folder / "a", "x");
  put_file(folder / "b", "x");
  fs::create_symlink("a", folder / "soft");
  fs::create_hard_link(folder / "a", folder / "hard");
  EXPECT_TRUE(same_file(folder / "a", folder.path() / "." / "a"));
  EXPECT_TRUE(same_file(folder / "a", folder / "soft"));
  EXPECT_TRUE(same_file(folder / "hard", folder / "soft"));
  EXPECT_FALSE(same_file(folder / "a", folder / "b"));
  EXPECT_FALSE(same_file(folder / "a", folder / "none"));
  EXPECT_FALSE(same_file(folder / "none", folder / "none"));
}

}  // namespace
}  // namespace mezzotint::io
