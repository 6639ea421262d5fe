#pragma once
#include <string>
#include <vector>

#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/convert/correction/correction.h"

/// `correct`, which is `extract --residual`, too.
namespace mezzotint::cli {

struct CorrectArguments {
  std::string original, quantized, dtype = "fp16", max_memory;
  OutputArguments output;
  std::vector<std::string> calibration;
  int64_t rank = convert::CorrectionOptions().rank;
  size_t top = 10;
  int threads = 0;
  bool json = false;
};

/// Options of both, in words that fit either.
void add_rank_option(CLI::App& app, CorrectArguments& arguments, const char* help);
void add_calibration_option(CLI::App& app, CorrectArguments& arguments, const char* help);
void add_dtype_option(CLI::App& app, CorrectArguments& arguments);
/// --max-memory, --top, --threads and --json; `kept` is what half of the memory holds, `listed` what --top counts.
void add_run_options(CLI::App& app, CorrectArguments& arguments, const char* kept, const char* listed);

/// --dtype of a LoRA: fp16, bf16 or fp32.
DType lora_dtype(const std::string& text);

/// "12.3456" for 0.123456.
std::string percent(double value);

/// What convert::CorrectionOptions and convert::ExtractOptions share.
template <class Options>
Options shared_options(const CorrectArguments& arguments) {
  Options options;
  options.rank = arguments.rank;
  options.dtype = lora_dtype(arguments.dtype);
  if (!arguments.max_memory.empty()) options.max_memory = parse_size(arguments.max_memory);
  options.threads = arguments.threads;
  options.overwrite = arguments.output.force;
  return options;
}

/// run(options) with a display of its progress, until Ctrl-C.
template <class Options, class Run>
auto with_progress(const char* verb, const CorrectArguments& arguments, Options options, const Run& run) {
  const ScopedInterrupt scoped;
  options.cancel = &interrupted();
  ProgressDisplay progress(verb, arguments.output.quiet);
  options.progress = [&](uint64_t done, uint64_t total, const std::string& layer) {
    progress.update(done, total, layer);
  };
  return run(options);
}

int run_correct(const CorrectArguments& arguments);

}  // namespace mezzotint::cli
