// What loading costs at its peak, on files of real size: FOLDER gets them, each step is a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "mezzotint/io/writer.h"
#include "mezzotint/models/wan/wan.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/save.h"
#include "synth/recipe.h"

namespace {

using namespace mezzotint;
namespace fs = std::filesystem;

constexpr int kSkipped = 77;  // SKIP_RETURN_CODE of the test
constexpr uint64_t kFileBytes = 6'000'000'000;
constexpr uint64_t kDiskBytes = 10'000'000'000;  // io::Writer wants room for both files, though one is sparse

/// A line of /proc/self/status in bytes: VmRSS is what the process holds, VmHWM the most that it held.
uint64_t memory(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1)) * 1024;
  throw std::runtime_error("no " + key);
}

double gigabytes(uint64_t bytes) {
  return static_cast<double>(bytes) * 1e-9;
}

/// Loads, saves to `out` unless that is empty, and compares the growth of the process with result + `extra`.
int load(const std::string& in, const std::string& to, bool mmap, const std::string& out, double factor,
         uint64_t extra) {
  const auto file = checkpoint::Model::open(in);
  models::wan::Transformer model(models::wan::config_from(file.source().tensors()));
  const uint64_t before = memory("VmRSS");
  const nn::LoadReport report = nn::load(model, file, {.to = to, .mmap = mmap});
  const uint64_t loaded = memory("VmHWM") - before;
  if (!report.missing.empty()) return std::printf("%s is missing\n", report.missing.front().c_str()), 1;
  uint64_t quantized = 0;
  for (const auto& entry : report.loaded)
    if (entry.stored.starts_with("int8")) quantized += entry.bytes;
  if (quantized < report.bytes / 2) return std::printf("only %.2f GB are quantized\n", gigabytes(quantized)), 1;
  if (!out.empty()) nn::save(model, out, {.source = &file});
  const uint64_t grown = memory("VmHWM") - before;
  const uint64_t limit = static_cast<uint64_t>(static_cast<double>(report.bytes) * factor) + extra;
  std::printf(
      "%s%s%s: %.2f GB of file, %.2f GB of parameters; the process grew by %.2f GB%s, at most %.2f GB allowed\n",
      fs::path(in).filename().c_str(), to.empty() ? "" : " to ", to.c_str(), gigabytes(file.source().total_bytes()),
      gigabytes(report.bytes), gigabytes(loaded),
      out.empty() ? "" : (" and, saving, " + std::to_string(gigabytes(grown)).substr(0, 4) + " GB").c_str(),
      gigabytes(limit));
  return grown <= limit ? 0 : 1;
}

/// Runs `step` in a process of its own, started anew.
int run(const std::string& program, const std::string& step, const fs::path& folder) {
  const pid_t child = fork();
  if (child == 0) {
    execl(program.c_str(), program.c_str(), folder.c_str(), step.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 1;
  return WEXITSTATUS(status);
}

int all(const std::string& program, const fs::path& folder) {
  fs::create_directories(folder);
  const uint64_t space = fs::space(folder).available;
  if (space < kDiskBytes)
    return std::printf("skipped: %.1f GB of disk are wanted, %.1f GB are free\n", gigabytes(kDiskBytes),
                       gigabytes(space)),
           kSkipped;
  int failed = 0;
  for (const std::string step : {"make", "quantize", "load", "map"}) {
    const auto start = std::chrono::steady_clock::now();
    const int result = run(program, step, folder);
    std::printf("%s: %s, %.1f s\n", step.c_str(), result == 0 ? "good" : "FAILED",
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::fflush(stdout);
    failed |= result;
    if (failed != 0) break;
  }
  fs::remove_all(folder);
  return failed;
}

/// A file of that size whose tensors start with random values; what is never written takes no disk and reads as zeros.
void make(const fs::path& path) {
  const auto shape = synth::read_shape_file(MEZZOTINT_SOURCE_DIR "/tools/shapes/wan2.2-ti2v-5b.json");
  const auto specs = synth::expand(shape, {.size = kFileBytes});
  io::Writer writer(io::plan_output(path, specs, {}), io::Writer::Mode::create, true);
  std::mt19937_64 rng(1);
  std::vector<uint16_t> values(1 << 15);
  for (uint16_t& value : values) value = static_cast<uint16_t>(0x3c00 + rng() % 0x0100);  // bf16, 0.008 to 0.03
  for (size_t i = 0; i < specs.size(); ++i)
    writer.write(i, 0, values.data(), std::min(writer.plan().tensors[i].bytes, values.size() * sizeof values[0]));
  writer.commit();
}

int step(const std::string& name, const fs::path& folder) {
  const std::string floats = folder / "floats.safetensors", int8 = folder / "int8.safetensors";
  if (name == "make") {
    make(floats);
    return 0;
  }
  if (name == "quantize") return load(floats, "int8_tensorwise", false, int8, 1, 1'000'000'000);
  return load(int8, "", name == "map", "", 1.1, 0);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 2) return all(argv[0], argv[1]);
    if (argc == 3) return step(argv[2], argv[1]);
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
