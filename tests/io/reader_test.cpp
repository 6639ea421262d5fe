#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "io/io_support.h"
#include "mezzotint/io/hash.h"
#include "mezzotint/io/reader.h"

namespace mezzotint::io {
namespace {
namespace fs = std::filesystem;
using test::expect_error;
using test::put_file;
using test::safetensors;
using test::TempFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

/// A file with one U8 tensor of two bytes.
std::string one(std::string_view name, std::string_view data = "xy") {
  return safetensors("{\"" + std::string(name) + R"(":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", data);
}

std::vector<std::string> names(const Source& source) {
  std::vector<std::string> out;
  for (const auto& tensor : source.tensors()) out.push_back(tensor.name);
  return out;
}

std::string text(const Source& source, std::string_view name) {
  const auto bytes = source.read_all(source.find(name));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Reader, DescribesAndReadsEveryTensor) {
  const TempFolder folder;
  put_file(folder / "m.safetensors", safetensors(R"({"__metadata__":{"format":"pt","b":"\u00e9\n"},)"
                                                 R"("late":{"dtype":"I8","shape":[3,1],"data_offsets":[4,7]},)"
                                                 R"("first":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},)"
                                                 R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[7,7]}})",
                                                 "ABCDEFG"));
  const auto source = Source::open(folder / "m.safetensors");
  ASSERT_THAT(names(source), ElementsAre("first", "late", "none"));
  const auto& late = source.tensors()[1];
  EXPECT_EQ(late.dtype, DType::i8);
  EXPECT_EQ(late.shape, (Shape{3, 1}));
  EXPECT_EQ(late.bytes, 3u);
  EXPECT_EQ(late.offset, fs::file_size(folder / "m.safetensors") - 3);
  EXPECT_EQ(late.file, 0u);
  EXPECT_THAT(source.metadata(), ElementsAre(Pair("format", "pt"), Pair("b", "\xc3\xa9\n")));
  EXPECT_EQ(text(source, "first"), "ABCD");
  EXPECT_EQ(text(source, "late"), "EFG");
  EXPECT_EQ(text(source, "none"), "");
  char middle[2];
  source.read(source.find("first"), 1, middle, 2);
  EXPECT_EQ(std::string_view(middle, 2), "BC");
  EXPECT_EQ(source.find("nobody"), Source::npos);
  EXPECT_EQ(source.total_bytes(), fs::file_size(folder / "m.safetensors"));
}

TEST(Reader, TheLastOfTwoEqualMetadataKeysCounts) {
  const TempFolder folder;
  put_file(folder / "m", safetensors(R"({"__metadata__":{"a":"1","k":"old","b":"2","k":"mid","k":"new"}})"));
  EXPECT_THAT(Source::open(folder / "m").metadata(), ElementsAre(Pair("a", "1"), Pair("k", "new"), Pair("b", "2")));
}

TEST(Reader, ReadsBeyondFourGiB) {
  const TempFolder folder;
  const uint64_t big = (uint64_t{5} << 30) + 1;
  const std::string header = R"({"big":{"dtype":"U8","shape":[)" + std::to_string(big) + R"(],"data_offsets":[0,)" +
                             std::to_string(big) + R"(]},"end":{"dtype":"U8","shape":[4],"data_offsets":[)" +
                             std::to_string(big) + "," + std::to_string(big + 4) + "]}}";
  put_file(folder / "m", safetensors(header));
  const uint64_t data = fs::file_size(folder / "m");
  fs::resize_file(folder / "m", data + big + 4);  // a hole: occupies no disk
  std::fstream file(folder / "m", std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(data + big - 2)).write("yzWXYZ", 6);
  file.close();
  const auto source = Source::open(folder / "m");
  EXPECT_EQ(text(source, "end"), "WXYZ");
  char tail[2];
  source.read(source.find("big"), big - 2, tail, 2);
  EXPECT_EQ(std::string_view(tail, 2), "yz");
}

TEST(Reader, ThreadsReadTheSameFile) {
  const TempFolder folder;
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 251);
  put_file(folder / "m", safetensors(R"({"a":{"dtype":"U8","shape":[1048576],"data_offsets":[0,1048576]}})", data));
  const auto source = Source::open(folder / "m");
  std::vector<std::jthread> threads;
  std::atomic<int> wrong = 0;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::string piece(1000, '\0');
      for (size_t at = t * 1000; at + 1000 <= data.size(); at += 4000) {
        source.read(0, at, piece.data(), piece.size());
        wrong += piece != data.substr(at, piece.size());
      }
    });
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

TEST(Reader, NoticesAFileThatShrinks) {
  const TempFolder folder;
  put_file(folder / "m", one("a"));
  const auto source = Source::open(folder / "m");
  fs::resize_file(folder / "m", fs::file_size(folder / "m") - 1);
  const auto info = expect_error("file-changed", [&] { source.read_all(0); });
  EXPECT_EQ(info.file, (folder / "m").string());
}

TEST(Reader, SaysWhatIsMissing) {
  const TempFolder folder;
  EXPECT_EQ(expect_error("file-not-found", [&] { Source::open(folder / "no"); }).file, (folder / "no").string());
  put_file(folder / "f", one("a"));
  expect_error("file-not-found", [&] { Source::open(folder / "f" / "below-a-file"); });
  expect_error("not-a-file", [&] { Source::open("/dev/null"); });
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error("not-a-file", [&] { Source::open(folder / "pipe"); });  // must not wait for a writer
}

TEST(Reader, FingerprintFollowsSizeTimeAndHeader) {
  const TempFolder folder;
  put_file(folder / "m", one("a"));
  const auto time = fs::last_write_time(folder / "m");
  const auto print = [&] { return Source::open(folder / "m").fingerprint(); };
  const uint64_t before = print();
  EXPECT_EQ(print(), before);
  put_file(folder / "m", one("b"));  // same size
  fs::last_write_time(folder / "m", time);
  EXPECT_NE(print(), before);
  put_file(folder / "m", one("a", "zz"));  // same size and header: only the time can tell
  fs::last_write_time(folder / "m", time + std::chrono::microseconds(1));
  EXPECT_NE(print(), before);
  fs::last_write_time(folder / "m", time);
  EXPECT_EQ(print(), before);
}

TEST(Hash64, MatchesThePublishedVectors) {  // of the FNV reference code
  EXPECT_EQ(Hash64().value(), 0xcbf29ce484222325u);
  EXPECT_EQ(Hash64().add("a").value(), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(Hash64().add("foobar").value(), 0x85944171f73967e8u);
  EXPECT_EQ(Hash64().add(uint64_t{0x6f66}).value(), Hash64().add({"fo\0\0\0\0\0\0", 8}).value());
}

constexpr char kShard1[] = "model-00001-of-00003.safetensors";
constexpr char kShard2[] = "model-00002-of-00003.safetensors";
constexpr char kShard3[] = "model-00003-of-00003.safetensors";

/// Three shards with the tensors a, b, c and an index over them.
void put_shards(const fs::path& folder, const std::string& index_name = "model.safetensors.index.json") {
  put_file(folder / kShard1, one("a", "11"));
  put_file(folder / kShard2, one("b", "22"));
  put_file(folder / kShard3, one("c", "33"));
  put_file(folder / index_name, std::string(R"({"metadata":{"total_size":6,"x":[{}]},"weight_map":{"c":")") + kShard3 +
                                    R"(","a":")" + kShard1 + R"(","b":")" + kShard2 + R"("}})");
}

TEST(Shards, AreReadThroughTheIndexOrTheFolder) {
  const TempFolder folder;
  put_shards(folder.path());
  const auto check = [&](const fs::path& path) {
    const auto source = Source::open(path);
    EXPECT_THAT(names(source), ElementsAre("a", "b", "c"));
    EXPECT_EQ(source.files().size(), 3u);
    EXPECT_EQ(source.tensors()[2].file, 2u);
    EXPECT_EQ(text(source, "b"), "22");
    EXPECT_EQ(text(source, "c"), "33");
  };
  check(folder / "model.safetensors.index.json");
  check(folder.path());
  fs::remove(folder / "model.safetensors.index.json");
  check(folder.path());
  EXPECT_THAT(names(Source::open(folder / kShard2)), ElementsAre("b"));
}

TEST(Shards, MissingOnesAreListedByName) {
  const TempFolder folder;
  put_shards(folder.path());
  fs::remove(folder / kShard1);
  fs::remove(folder / kShard3);
  for (const bool with_index : {true, false}) {
    const auto info = expect_error("shards-missing", [&] { Source::open(folder.path()); });
    EXPECT_THAT(info.advice, HasSubstr(kShard1));
    EXPECT_THAT(info.advice, HasSubstr(kShard3));
    EXPECT_THAT(info.advice, testing::Not(HasSubstr(kShard2)));
    EXPECT_THAT(info.problem, HasSubstr("2 shards of 3"));
    if (with_index) fs::remove(folder / "model.safetensors.index.json");
  }
}

TEST(Shards, TruncatedShardIsNamed) {
  const TempFolder folder;
  put_shards(folder.path());
  fs::resize_file(folder / kShard2, fs::file_size(folder / kShard2) - 1);
  EXPECT_EQ(expect_error("truncated-file", [&] { Source::open(folder.path()); }).file, (folder / kShard2).string());
}

TEST(Shards, IndexAndShardsMustAgree) {
  const TempFolder folder;
  put_shards(folder.path());
  put_file(folder / kShard2, one("other"));
  auto info = expect_error("index-tensor-missing", [&] { Source::open(folder.path()); });
  EXPECT_EQ(info.file, (folder / kShard2).string());
  EXPECT_EQ(info.tensor, "b");

  put_file(folder / kShard2, one("c"));
  info = expect_error("tensor-in-two-shards", [&] { Source::open(folder.path()); });
  EXPECT_EQ(info.tensor, "c");
  EXPECT_THAT(info.found, testing::AllOf(HasSubstr(kShard2), HasSubstr(kShard3)));

  put_shards(folder.path());  // b and c have changed places
  put_file(folder / kShard2, one("c"));
  put_file(folder / kShard3, one("b"));
  expect_error("index-tensor-missing", [&] { Source::open(folder.path()); });
}

TEST(Shards, TensorsBeyondTheIndexAreKept) {
  const TempFolder folder;
  put_shards(folder.path());
  put_file(folder / kShard2, safetensors(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                         R"("extra":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                         "!?"));
  EXPECT_EQ(text(Source::open(folder.path()), "extra"), "?");
}

TEST(Shards, MetadataOfTheFirstFileWins) {
  const TempFolder folder;
  put_shards(folder.path());
  put_file(folder / kShard1,
           safetensors(R"({"__metadata__":{"k":"1"},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"));
  put_file(folder / kShard2,
           safetensors(R"({"__metadata__":{"k":"2","l":"2"},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"));
  EXPECT_THAT(Source::open(folder.path()).metadata(), ElementsAre(Pair("k", "1"), Pair("l", "2")));
}

TEST(Shards, BadIndexes) {
  const TempFolder folder;
  put_file(folder / "a.safetensors", one("a"));
  const std::string bad[] = {
      "",
      "[]",
      "{}",
      "nonsense",
      R"({"weight_map":[]})",
      R"({"weight_map":"a"})",
      R"({"weight_map":{}})",
      R"({"weight_map":{"a":1}})",
      R"({"weight_map":{"a":["a.safetensors"]}})",
      R"({"weight_map":{"a":{"b":"a.safetensors"}}})",
      R"({"weight_map":{"a":""}})",
      R"({"weight_map":{"a":".."}})",
      R"({"weight_map":{"a":"../a.safetensors"}})",
      R"({"weight_map":{"a":"/etc/passwd"}})",
      R"({"weight_map":{"a":"x\\a.safetensors"}})",
      R"({"weight_map":{"a":"a.safetensors\u0000"}})",
      R"({"weight_map":{"a":"a.safetensors"},"weight_map":{"a":"a.safetensors"}})",
      R"({"weight_map":{"a":"a.safetensors"}}})",
      std::string(R"({"weight_map":{"a":"a.safetensors"}})") + '\0',
      R"({"x":)" + std::string(1000, '[') + std::string(1000, ']') + R"(,"weight_map":{"a":"a.safetensors"}})",
  };
  for (const auto& index : bad) {
    SCOPED_TRACE(index.substr(0, 80));
    put_file(folder / "m.index.json", index);
    expect_error("bad-index", [&] { Source::open(folder / "m.index.json"); });
  }
  put_file(folder / "m.index.json", R"({"weight_map":{"a":"a.safetensors"}})");
  EXPECT_THAT(names(Source::open(folder / "m.index.json")), ElementsAre("a"));
  put_file(folder / "b.safetensors", one("b"));
  put_file(folder / "m.index.json", R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})");
  expect_error("bad-index", [&] { Source::open(folder / "m.index.json"); });
}

TEST(Reader, MapsPrivateCopies) {
  const TempFolder folder;
  put_file(folder / "m.safetensors", safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                                 R"("b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]},)"
                                                 R"("none":{"dtype":"F32","shape":[0],"data_offsets":[5,5]}})",
                                                 "vwxyz"));
  std::shared_ptr<std::byte> a, b;
  {
    const auto source = Source::open(folder / "m.safetensors");
    a = source.map(source.find("a"));
    b = source.map(source.find("b"));
    EXPECT_EQ(b.get(), a.get() + 2) << "one mapping a file";
    EXPECT_EQ(source.map(source.find("none")), nullptr);
    *b = std::byte{'!'};
    EXPECT_EQ(text(source, "b"), "xyz") << "the file stays";
  }
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(a.get()), 5), "vw!yz") << "outlives the source";
  const auto source = Source::open(folder / "m.safetensors");
  const auto bytes = fs::file_size(folder / "m.safetensors");
  fs::resize_file(folder / "m.safetensors", bytes - 1);
  expect_error("file-changed", [&] { source.map(source.find("b")); });
  EXPECT_NE(source.map(source.find("a")), nullptr);
}

TEST(Folders, DiffusersModel) {
  const TempFolder folder;
  put_file(folder / "model_index.json", "{}");
  put_file(folder / "vae" / "diffusion_pytorch_model.safetensors", one("vae"));
  put_file(folder / "tokenizer" / "tokenizer.json", "{}");
  const auto info = expect_error("nothing-to-read", [&] { Source::open(folder.path()); });
  EXPECT_THAT(info.advice, HasSubstr("vae"));

  put_shards(folder / "transformer", "diffusion_pytorch_model.safetensors.index.json");
  EXPECT_THAT(names(Source::open(folder.path())), ElementsAre("a", "b", "c"));
  EXPECT_THAT(names(Source::open(folder / "transformer")), ElementsAre("a", "b", "c"));
  EXPECT_THAT(names(Source::open(folder / "vae")), ElementsAre("vae"));

  put_shards(folder / "transformer_2", "diffusion_pytorch_model.safetensors.index.json");
  const auto two = expect_error("ambiguous-folder", [&] { Source::open(folder.path()); });
  EXPECT_THAT(two.advice, testing::AllOf(HasSubstr("/transformer\n"), HasSubstr("/transformer_2")));
}

TEST(Folders, NeverGuessBetweenTwoModels) {
  const TempFolder folder;
  expect_error("nothing-to-read", [&] { Source::open(folder.path()); });
  put_file(folder / "a.safetensors", one("a"));
  put_file(folder / "._a.safetensors", "left by a foreign system");
  EXPECT_THAT(names(Source::open(folder.path())), ElementsAre("a"));
  put_file(folder / "a.fp16.safetensors", one("b"));
  const auto info = expect_error("ambiguous-folder", [&] { Source::open(folder.path()); });
  EXPECT_THAT(info.advice, testing::AllOf(HasSubstr("a.safetensors"), HasSubstr("a.fp16.safetensors")));
  put_shards(folder.path());  // an index says which files belong together
  EXPECT_THAT(names(Source::open(folder.path())), ElementsAre("a", "b", "c"));
  put_shards(folder.path(), "model.fp16.safetensors.index.json");
  expect_error("ambiguous-folder", [&] { Source::open(folder.path()); });
}

TEST(Folders, HuggingFaceCache) {
  const TempFolder folder;
  put_file(folder / "blobs" / "1234", one("a"));
  fs::create_directories(folder / "snapshots" / "abc");
  fs::create_symlink("../../blobs/1234", folder / "snapshots" / "abc" / "model.safetensors");
  EXPECT_THAT(names(Source::open(folder.path())), ElementsAre("a"));
  put_file(folder / "snapshots" / "def" / "model.safetensors", one("b"));
  expect_error("ambiguous-folder", [&] { Source::open(folder.path()); });
  put_file(folder / "refs" / "main", "def\n");
  EXPECT_THAT(names(Source::open(folder.path())), ElementsAre("b"));
}

}  // namespace
}  // namespace mezzotint::io
