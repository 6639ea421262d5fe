#include "mezzotint/convert/journal.h"

#include "convert/conversion.h"

namespace mezzotint::convert {
namespace {

class JournalFile : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "out.partial.journal"; }
  void put(const std::string& text) const { std::ofstream(path(), std::ios::binary) << text; }
  std::vector<size_t> read(uint64_t fingerprint = 7) const { return Journal::read(path(), fingerprint); }
  std::string text() const { return file_bytes(path()); }
  void other_boot() const {
    std::string all = text();
    all.replace(all.find("boot ") + 5, 4, "0000");
    put(all);
  }
  test::TemporaryFolder folder_;
};

using Rows = std::vector<size_t>;

TEST_F(JournalFile, LiesBesideThePartialFile) {
  EXPECT_EQ(Journal::path_for(folder_ / "out"), path());
}

TEST_F(JournalFile, TellsTheRowsOfAKilledRun) {
  EXPECT_EQ(read(), Rows{});
  Journal journal(path(), 7, {});
  for (const size_t row : {4, 0, 12345678}) journal.row_done(row);
  EXPECT_EQ(read(), (Rows{4, 0, 12345678}));
  EXPECT_EQ(journal.recorded(), 3u);
  journal.remove();
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(JournalFile, AfterARestartOnlySyncedRowsCount) {
  Journal journal(path(), 7, {});
  for (const size_t row : {3, 1, 4}) journal.row_done(row);
  journal.synced(2);
  journal.row_done(5);
  EXPECT_EQ(read(), (Rows{3, 1, 4, 5}));
  other_boot();
  EXPECT_EQ(read(), (Rows{3, 1}));
}

TEST_F(JournalFile, ASecondRunTakesTheFirstOnesRowsOver) {
  { Journal(path(), 7, {}).row_done(9); }
  Journal journal(path(), 7, {9, 2});
  journal.row_done(5);
  EXPECT_EQ(read(), (Rows{9, 2, 5}));
  other_boot();
  EXPECT_EQ(read(), (Rows{9, 2})) << "the caller has synced them";
}

TEST_F(JournalFile, ALineThatWasCutOffDoesNotCount) {
  Journal journal(path(), 7, {});
  journal.row_done(3);
  journal.row_done(41);
  const std::string whole = text();
  const size_t last = whole.rfind("row");
  for (size_t size = 0; size <= whole.size(); ++size) {
    put(whole.substr(0, size));
    Rows rows = read();
    const size_t first = whole.find("row 3\n") + 6;
    EXPECT_EQ(rows, size == whole.size() ? (Rows{3, 41}) : size >= first ? Rows{3} : Rows{}) << size;
    EXPECT_GE(last, first);
  }
}

TEST_F(JournalFile, ACutOffSyncedLineDoesNotCountEither) {
  Journal journal(path(), 7, {});
  for (size_t row = 0; row < 15; ++row) journal.row_done(row);
  journal.synced(1);
  journal.synced(12);
  other_boot();
  const std::string whole = text();
  put(whole.substr(0, whole.size() - 1));
  EXPECT_EQ(read(), Rows{0});
  put(whole);
  EXPECT_EQ(read().size(), 12u);
}

TEST_F(JournalFile, RefusesAnotherRun) {
  { Journal(path(), 7, {}).row_done(1); }
  EXPECT_EQ(error_of([&] { read(8); }), "resume-mismatch");
  put("something else\n");
  EXPECT_EQ(error_of([&] { read(); }), "resume-mismatch");
}

TEST_F(JournalFile, BytesOfOtherThingsAreNoRows) {
  Journal journal(path(), 7, {});
  const std::string head = text();
  put(head + "row\nrow x\nrows 4\n\n" + std::string(3, '\0') + "\nsynced\nrow 6\n");
  EXPECT_EQ(read(), Rows{6});
}

}  // namespace
}  // namespace mezzotint::convert
