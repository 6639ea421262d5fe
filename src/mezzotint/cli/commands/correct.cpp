#include <fmt/format.h>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/correction_command.h"

namespace mezzotint::cli {

void add_correct(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<CorrectArguments>();
  CLI::App* sub =
      app.add_subcommand("correct", "Write what quantization lost, as far as a LoRA can hold it, as a LoRA file");
  sub->add_option("original", arguments->original, "The original: file, index or folder")->required()->type_name("A");
  sub->add_option("quantized", arguments->quantized, "What it was converted to")->required()->type_name("B");
  add_output_options(*sub, arguments->output, "LoRA file to write", true);
  sub->add_option("--rank", arguments->rank,
                  fmt::format("Rank of the correction of every layer. Default: {}", arguments->rank))
      ->type_name("N")
      ->check(CLI::Range(1, 4096).description(""));
  sub->add_option("--calibration", arguments->calibration,
                  "Files with statistics of the layers' inputs: correct the error of outputs, not of weights")
      ->type_name("FILE...")
      ->type_size(1)
      ->expected(1, 1 << 20);
  sub->add_option("--dtype", arguments->dtype, "Of the LoRA: fp16, bf16 or fp32. Default: fp16")->type_name("NAME");
  sub->add_option("--max-memory", arguments->max_memory,
                  "Half of it holds errors, which are decoded again and again where they do not fit. Default: 1GiB")
      ->type_name("SIZE");
  sub->add_option("--top", arguments->top, "Layers to print, worst first. Default: 10")->type_name("N");
  add_threads_option(*sub, arguments->threads);
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_correct(*arguments); }; });
}

}  // namespace mezzotint::cli
