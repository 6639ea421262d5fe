// What loading costs at its peak, on files of real size: FOLDER gets them, each step is a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "mezzotint/io/writer.h"
#include "mezzotint/models/wan/wan.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/nn/save.h"
#include "synth/recipe.h"

namespace {

using namespace mezzotint;
namespace fs = std::filesystem;

constexpr int kSkipped = 77;                     // SKIP_RETURN_CODE of the test
constexpr uint64_t kFileBytes = 6'000'000'000;   // of floats, about half of that as int8
constexpr uint64_t kSmallBytes = 1'000'000'000;  // what is saved is written indeed
constexpr uint64_t kDiskBytes = 8'000'000'000;   // io::Writer wants room for a file, though it is sparse
constexpr std::string_view kMarker = R"({"format": "int8_tensorwise"})";

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
  for (const std::string step : {"make", "quantize", "load", "map", "save"}) {
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

/// The tensors of a Wan of about `bytes`, its blocks' matrices as int8 on demand.
std::vector<io::TensorSpec> specs_of(uint64_t bytes, bool int8) {
  const auto shape = synth::read_shape_file(MEZZOTINT_SOURCE_DIR "/tools/shapes/wan2.2-ti2v-5b.json");
  const auto floats = synth::expand(shape, {.size = bytes});
  if (!int8) return floats;
  std::vector<io::TensorSpec> specs;
  for (const io::TensorSpec& spec : floats) {
    if (!spec.name.starts_with("blocks.") || !spec.name.ends_with(".weight") || spec.shape.size() != 2) {
      specs.push_back(spec);
      continue;
    }
    const std::string layer = spec.name.substr(0, spec.name.rfind('.') + 1);
    specs.push_back({spec.name, DType::i8, spec.shape});
    specs.push_back({layer + "weight_scale", DType::f32, {}});
    specs.push_back({layer + "comfy_quant", DType::u8, {static_cast<int64_t>(kMarker.size())}});
  }
  return specs;
}

/// A file whose tensors start with some values; what is never written takes no disk and reads as zeros.
void make(const fs::path& path, uint64_t bytes, bool int8) {
  const auto specs = specs_of(bytes, int8);
  io::Writer writer(io::plan_output(path, specs, {}), io::Writer::Mode::create, true);
  const std::vector<uint16_t> values(1 << 15, 0x3c23);  // bf16, about 0.01; codes 35 and 60
  for (size_t i = 0; i < specs.size(); ++i) {
    const uint64_t size = writer.plan().tensors[i].bytes;
    const float scale = 1e-3f;
    if (specs[i].name.ends_with("comfy_quant"))
      writer.write(i, 0, kMarker.data(), size);
    else if (specs[i].name.ends_with("weight_scale"))
      writer.write(i, 0, &scale, size);
    else
      writer.write(i, 0, values.data(), std::min(size, values.size() * sizeof values[0]));
  }
  writer.commit();
}

int step(const std::string& name, const fs::path& folder) {
  const std::string floats = folder / "floats.safetensors", int8 = folder / "int8.safetensors",
                    small = folder / "small.safetensors";
  if (name == "make") {
    make(floats, kFileBytes, false);
    make(int8, kFileBytes, true);
    make(small, kSmallBytes, true);
    return 0;
  }
  if (name == "quantize") return load(floats, "int8_tensorwise", false, "", 1, 1'000'000'000);
  if (name == "save")
    return load(small, "", false, folder / "saved.safetensors", 1.1,
                100'000'000);  // a tensor, and what the allocator keeps
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
