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
  add_rank_option(*sub, *arguments, "Rank of the correction of every layer");
  add_calibration_option(*sub, *arguments,
                         "Files with statistics of the layers' inputs: correct the error of outputs, not of weights");
  add_dtype_option(*sub, *arguments);
  add_run_options(*sub, *arguments, "errors", "Layers to print, worst");
  sub->callback([arguments, &context] { context.action = [arguments] { return run_correct(*arguments); }; });
}

}  // namespace mezzotint::cli
