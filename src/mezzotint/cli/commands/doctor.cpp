#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/base/version.h"
#include "mezzotint/cli/context.h"
#include "mezzotint/cli/machine.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/kernel/cuda/cuda.h"
#include "mezzotint/kernel/isa.h"

namespace mezzotint::cli {
namespace {

struct DoctorArguments {
  std::string folder = ".";
  bool json = false;
};

#if defined(__clang__)
constexpr std::string_view kCompiler = "clang " __clang_version__;
#else
constexpr std::string_view kCompiler = "g++ " __VERSION__;
#endif

std::vector<std::string_view> levels(bool enabled_only) {
  std::vector<std::string_view> names;
  for (const auto& facts : kernel::all_isas())
    if (enabled_only ? kernel::enabled(facts.isa) : kernel::machine_has(facts.isa)) names.push_back(facts.name);
  return names;
}

std::vector<std::string> gpus() {
  std::vector<std::string> found;
  for (const auto& gpu : kernel::cuda::devices())
    found.push_back(
        fmt::format("{} (compute capability {}.{}, {})", gpu.name, gpu.major, gpu.minor, size_text(gpu.memory)));
  return found;
}

std::string cuda_text() {
  if (!kernel::cuda::built()) return "not built in";
  const auto found = gpus();
  return fmt::format("built for {}; {}", kernel::cuda::architectures(),
                     found.empty() ? "no GPU" : fmt::format("{}", fmt::join(found, ", ")));
}

int run_doctor(const DoctorArguments& arguments) {
  const MachineFacts machine = machine_facts();
  const auto in_use = kernel::name(kernel::active_isa());
  const DiskSpeed disk = measure_disk(arguments.folder);
  if (arguments.json) {
    const nlohmann::ordered_json root{{"version", kVersion},
                                      {"compiler", kCompiler},
                                      {"system", machine.system},
                                      {"cpu", machine.cpu},
                                      {"threads", machine.threads},
                                      {"isa_available", levels(false)},
                                      {"isa_enabled", levels(true)},
                                      {"isa_in_use", in_use},
                                      {"cuda_architectures", kernel::cuda::architectures()},
                                      {"gpus", gpus()},
                                      {"memory_bytes", machine.memory_bytes},
                                      {"available_bytes", machine.available_bytes},
                                      {"folder", arguments.folder},
                                      {"disk_probe_bytes", disk.bytes},
                                      {"disk_write_mb_s", disk.write_mb_s},
                                      {"disk_read_mb_s", disk.read_mb_s}};
    fmt::print("{}\n", root.dump(2));
    return kDone;
  }
  fmt::print("mezzotint {} ({})\n", kVersion, kCompiler);
  fmt::print("system: {}\n", machine.system);
  fmt::print("CPU: {}, {} threads\n", machine.cpu.empty() ? "unknown" : machine.cpu, machine.threads);
  fmt::print("instruction sets: {} available, {} in use{}\n", fmt::join(levels(false), " "), in_use,
             levels(true).size() < levels(false).size() ? " (capped by MEZZOTINT_ISA)" : "");
  fmt::print("CUDA: {}\n", cuda_text());
  fmt::print("memory: {}, {} available\n", size_text(machine.memory_bytes), size_text(machine.available_bytes));
  fmt::print("disk of {}: writes {:.0f} MB/s (synced), reads {:.0f} MB/s ({} test file)\n", arguments.folder,
             disk.write_mb_s, disk.read_mb_s, size_text(disk.bytes));
  return kDone;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<DoctorArguments>();
  CLI::App* sub =
      app.add_subcommand("doctor", "Say what this machine offers: CPU, instruction sets, memory, disk speed");
  sub->add_option("folder", arguments->folder, "Folder whose disk to measure. Default: the current one")
      ->type_name("FOLDER");
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_doctor(*arguments); }; });
}

}  // namespace mezzotint::cli
