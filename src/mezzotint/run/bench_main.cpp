#include <c10/core/InferenceMode.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "mezzotint/run/bench/arguments.h"

int main(int argc, char** argv) {
  CLI::App app("Measures quantized models on this machine.", "mezzotint-bench");
  app.require_subcommand(1);
  mezzotint::run::bench::Arguments wan;
  CLI::App& command = *app.add_subcommand(
      "wan", "Layers, blocks and steps of Wan 2.2 in every format, beside torch in bf16: time, memory, error");
  command.add_option("--model", wan.models, "5b, 14b, or a width and a feed-forward width of your own: 256x512")
      ->delimiter(',')
      ->capture_default_str();
  command.add_option("--m", wan.m, "Rows of activations: attention, MLP up and MLP down at each")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--tokens", wan.tokens, "Of the long sequence; default 4096 on a CPU, else that of a video")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--block-tokens", wan.block_tokens, "Of the block; default as --tokens, at most 1024 on a CPU")
      ->check(CLI::Range(1, 1 << 20));
  command.add_option("--formats", wan.formats, "By name, alias or label; default every one")->delimiter(',');
  command.add_option("--device", wan.device)->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  command.add_option("--threads", wan.threads, "Default: as many as libtorch takes")->check(CLI::Range(1, 4096));
  command.add_option("--seconds", wan.seconds, "Least time of a table's turns")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--rounds", wan.rounds, "Least number of turns")
      ->check(CLI::Range(1, 2000))
      ->capture_default_str();
  command.add_flag("!--no-fp32", wan.fp32, "Leave out torch's linear in float32");
  command.add_flag("--cpu-time", wan.cpu_time,
                   "Time of the thread (with --threads 1): where others use the machine too");
  command.add_option("--only", wan.only, "layers or block")->check(CLI::IsMember({"layers", "block"}));
  command.add_flag("--quick", wan.quick, "5B alone, 256 tokens");
  command.add_option("--json", wan.json, "Also write the results to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::InferenceMode guard;
    return mezzotint::run::bench::wan(wan) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mezzotint-bench: error: %s\n", error.what());
    return 1;
  }
}
