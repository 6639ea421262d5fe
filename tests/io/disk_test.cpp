#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "io/io_support.h"
#include "mezzotint/io/platform.h"
#include "mezzotint/io/writer.h"

/// What the disk can do to a run: no space, limits, folders that cannot be written. Each test says in its name how the
/// condition is made, because not every machine allows every way.
namespace mezzotint::io {
namespace {
namespace fs = std::filesystem;
using test::expect_error;
using test::get_file;
using test::put_file;
using test::TempFolder;
using Mode = Writer::Mode;

OutputPlan plan_of(const fs::path& path, int64_t bytes) {
  return plan_output(path, {{"a", DType::u8, {bytes}}}, {});
}

/// Writes the whole plan in pieces and commits it.
void write_all(const OutputPlan& plan, bool overwrite) {
  Writer writer(plan, Mode::create, overwrite);
  const std::string piece(1 << 16, 'x');
  for (uint64_t at = 0; at < plan.tensors[0].bytes; at += piece.size())
    writer.write(0, at, piece.data(), std::min<uint64_t>(piece.size(), plan.tensors[0].bytes - at));
  writer.commit();
}

/// Runs `body` in a process of its own, so that mounts, limits and users stay there; false if `prepare` is not
/// permitted.
bool in_child(const std::function<bool()>& prepare, const std::function<void()>& body) {
  constexpr int kNotPermitted = 77;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (!prepare()) _exit(kNotPermitted);
    try {
      body();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    std::fflush(nullptr);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotPermitted) return false;
  EXPECT_EQ(WEXITSTATUS(status), 0) << "see the failures above";
  return true;
}

/// Mounts a disk of 1 MiB, seen by this process only.
bool mount_small_disk(const fs::path& at) {
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("none", at.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m") == 0;
}

constexpr char kNoMount[] =
    "this machine does not permit mounting; the tests on /dev/full and with a file size limit "
    "cover the same code";

TEST(Disk, FullOnASmallMountedDisk) {
  const TempFolder folder;
  const fs::path output = folder / "m.safetensors";
  const bool ran = in_child([&] { return mount_small_disk(folder.path()); },
                            [&] {
                              put_file(output, "precious");
                              // Too large from the start: said before a byte is written.
                              const auto info =
                                  expect_error("no-space", [&] { write_all(plan_of(output, 2 << 20), true); });
                              EXPECT_THAT(info.expected, testing::HasSubstr("bytes"));
                              EXPECT_FALSE(fs::exists(partial_path(output)));
                              // Fits at the start, then something else fills the disk.
                              Writer writer(plan_of(output, 800 << 10), Mode::create, true);
                              std::ofstream(folder / "other") << std::string(600 << 10, 'o');
                              const std::string data(800 << 10, 'x');
                              expect_error("disk-full", [&] { writer.write(0, 0, data.data(), data.size()); });
                              EXPECT_EQ(get_file(output), "precious");
                              EXPECT_TRUE(fs::exists(partial_path(output)));
                            });
  if (!ran) GTEST_SKIP() << kNoMount;
}

TEST(Disk, ResumedAfterFullOnASmallMountedDisk) {
  const TempFolder folder;
  const fs::path output = folder / "m.safetensors";
  const bool ran = in_child([&] { return mount_small_disk(folder.path()); },
                            [&] {
                              const auto plan = plan_of(output, 800 << 10);
                              const std::string data(800 << 10, 'x');
                              {
                                Writer writer(plan, Mode::create, false);
                                writer.write(0, 0, data.data(), 400 << 10);
                                std::ofstream(folder / "other") << std::string(500 << 10, 'o');
                                expect_error("disk-full", [&] { writer.write(0, 400 << 10, data.data(), 400 << 10); });
                              }
                              fs::remove(folder / "other");
                              // What is on disk already needs no room twice: 1 MiB would not hold 1200 KiB.
                              Writer writer(plan, Mode::resume, false);
                              writer.write(0, 400 << 10, data.data(), 400 << 10);
                              writer.commit();
                              EXPECT_EQ(get_file(output), plan.files[0].header + data);
                            });
  if (!ran) GTEST_SKIP() << kNoMount;
}

TEST(Disk, ReadOnlyOnASmallMountedDisk) {
  const TempFolder folder;
  const fs::path output = folder / "m.safetensors";
  const auto prepare = [&] {
    if (!mount_small_disk(folder.path())) return false;
    put_file(output, "precious");
    return mount("none", folder.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  };
  const bool ran = in_child(prepare, [&] {
    const auto info = expect_error("folder-not-writable", [&] { write_all(plan_of(output, 100), true); });
    EXPECT_EQ(info.file, folder.path().string());
    EXPECT_EQ(get_file(output), "precious");
  });
  if (!ran) GTEST_SKIP() << kNoMount;
}

TEST(Disk, FullOnDevFull) {
  const auto file = platform::File::open_write("/dev/full", false);
  const auto info = expect_error("disk-full", [&] { file.write_at(0, "x", 1); });
  EXPECT_EQ(info.file, "/dev/full");
  EXPECT_EQ(info.found, "No space left on device");
}

TEST(Disk, OutputAboveTheFileSizeLimit) {
  const TempFolder folder;
  const fs::path output = folder / "m.safetensors";
  put_file(output, "precious");
  const auto prepare = [] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    return setrlimit(RLIMIT_FSIZE, &limit) == 0;
  };
  EXPECT_TRUE(in_child(prepare, [&] {
    expect_error("file-too-large", [&] { write_all(plan_of(output, 2 << 20), true); });
    EXPECT_FALSE(fs::exists(partial_path(output))) << "a start that fails leaves nothing";
    write_all(plan_of(folder / "small", 1 << 19), false);
  }));
  EXPECT_EQ(get_file(output), "precious");
}

TEST(Disk, OutputLargerThanAnyDisk) {
  const TempFolder folder;
  expect_error("no-space", [&] { Writer(plan_of(folder / "m", int64_t{1} << 56), Mode::create, false); });
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Disk, FolderWithoutPermission) {
  const TempFolder folder;
  put_file(folder / "m", "precious");
  fs::permissions(folder.path(), fs::perms(0555));
  const auto prepare = [] { return geteuid() != 0 || seteuid(65534) == 0; };  // root may write everywhere
  EXPECT_TRUE(in_child(prepare, [&] {
    const auto info = expect_error("folder-not-writable", [&] { write_all(plan_of(folder / "m", 100), true); });
    EXPECT_EQ(info.file, folder.path().string());
    EXPECT_EQ(info.found, "Permission denied");
  }));
  EXPECT_EQ(get_file(folder / "m"), "precious");
  fs::permissions(folder.path(), fs::perms(0755));
}

TEST(Disk, PathsThatCannotBeOutputs) {
  const TempFolder folder;
  put_file(folder / "file", "x");
  expect_error("folder-not-found", [&] { write_all(plan_of(folder / "none" / "m", 1), false); });
  expect_error("folder-not-found", [&] { write_all(plan_of(folder / "file" / "m", 1), false); });
  expect_error("output-is-folder", [&] { write_all(plan_of(folder.path(), 1), true); });
  expect_error("output-not-a-file", [&] { write_all(plan_of("/dev/null", 1), true); });
  fs::create_symlink("file", folder / "m.partial");  // a trap: the bytes must not land elsewhere
  expect_error("open-failed", [&] { write_all(plan_of(folder / "m", 1), false); });
  EXPECT_EQ(get_file(folder / "file"), "x");
}

TEST(Platform, SaysWhenTheMachineStarted) {
  EXPECT_FALSE(platform::boot_id().empty());
  EXPECT_EQ(platform::boot_id(), platform::boot_id());
}

TEST(Platform, FreeSpaceAndAllocatedBytes) {
  const TempFolder folder;
  EXPECT_GT(platform::free_space(folder.path()).value_or(0), 0u);
  EXPECT_EQ(platform::free_space(folder / "none"), std::nullopt);
  EXPECT_EQ(platform::allocated_bytes(folder / "none"), 0u);
  put_file(folder / "a", "x");
  fs::resize_file(folder / "a", 1 << 30);  // a hole
  EXPECT_LT(platform::allocated_bytes(folder / "a"), 1u << 20);
}

TEST(Platform, ReadsUpToTheEndOfAFile) {
  const TempFolder folder;
  put_file(folder / "a", "0123456789");
  const auto file = platform::File::open_read(folder / "a");
  char text[8];
  EXPECT_EQ(file.read_at(6, text, 8), 4u);
  EXPECT_EQ(std::string_view(text, 4), "6789");
  EXPECT_EQ(file.read_at(99, text, 8), 0u);
  expect_error("write-failed", [&] { file.write_at(0, "x", 1); });
}

}  // namespace
}  // namespace mezzotint::io
