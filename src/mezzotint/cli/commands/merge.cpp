#include <fmt/format.h>

#include "mezzotint/cli/merge_options.h"
#include "mezzotint/cli/run_conversion.h"
#include "mezzotint/cli/size_text.h"

namespace mezzotint::cli {
namespace {

struct MergeCommandArguments {
  std::string base, to, original, rounding = "feedback", max_memory, max_shard_size;
  std::vector<std::string> loras;
  bool no_dampen = false, strict = false;
  uint64_t seed = 0;
  int effort = convert::ConvertOptions().effort;
  RunArguments run;
};

convert::ConvertOptions merge_options(const MergeCommandArguments& a) {
  convert::ConvertOptions options;
  options.to = a.to;
  if (!a.to.empty()) formats::select_format(a.to);
  for (const std::string& text : a.loras) options.merge_loras.push_back(parse_lora(text));
  options.merge_dampen = !a.no_dampen;
  options.merge_strict = a.strict;
  options.merge_original = a.original;
  const auto rounding = convert::parse_merge_rounding(a.rounding);
  if (!rounding)
    throw UsageError(fmt::format("--rounding has no mode '{}'. It is feedback, nearest or stochastic.", a.rounding));
  options.merge_rounding = *rounding;
  if (*rounding == convert::MergeRounding::stochastic) options.rounding = Rounding::Mode::stochastic;
  options.seed = a.seed;
  options.effort = a.effort;
  if (!a.max_memory.empty()) options.max_memory = parse_size(a.max_memory);
  if (!a.max_shard_size.empty()) options.max_shard_bytes = parse_size(a.max_shard_size);
  return options;
}

int run_merge(const MergeCommandArguments& arguments) {
  std::vector<ConversionJob> jobs;
  jobs.push_back(plan_job(checkpoint::Model::open(arguments.base), arguments.run.output.output,
                          merge_options(arguments), arguments.run.threads));
  return run_jobs(jobs, arguments.run, "merging");
}

}  // namespace

void add_merge(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<MergeCommandArguments>();
  MergeCommandArguments& a = *arguments;
  CLI::App* sub = app.add_subcommand("merge", "Multiply adapters (LoRA and others) into a model, quantized or not");
  sub->add_option("base", a.base, "Model: .safetensors file, *.index.json, or folder")->required()->type_name("BASE");
  add_output_options(*sub, a.run.output, "Model to write", true);
  add_repeated(sub, "--lora", a.loras,
               "Adapter file: LoRA, LoHa, LoKr, OFT, BOFT, GLoRA, DoRA or differences, in any dialect. Repeatable; "
               "strength 1 where none is given")
      ->required()
      ->type_name("FILE[:STRENGTH]");
  sub->add_option("-t,--to", a.to,
                  "Format to write, as for `convert`. Default: every tensor keeps its format, and what no adapter "
                  "changes keeps its bytes")
      ->type_name("FORMAT");
  sub->add_option("--from", a.original,
                  "The model that the quantized BASE was made from: layers that adapters change are quantized from its "
                  "weights, with scales of their own")
      ->type_name("FILE");
  sub->add_option(
         "--rounding", a.rounding,
         "Of quantized layers that keep their format: feedback (default: small deltas survive), nearest (fast) "
         "or stochastic (of all that is written)")
      ->type_name("MODE");
  sub->add_flag("--no-dampen", a.no_dampen,
                "All adapters with their full strength; else the n-th with 0.9^(n-1) of it");
  sub->add_flag("--strict", a.strict, "Stop where anything in an adapter has no place in the model");
  sub->add_option("--effort", a.effort, "Of layers that change their format, as for `convert`")
      ->type_name("N")
      ->check(CLI::Range(0, 3).description(""));
  sub->add_option("--seed", a.seed, "Seed of stochastic rounding. Default: 0")->type_name("N");
  sub->add_option("--max-memory", a.max_memory, "Bound of the buffers. Default: 1GiB")->type_name("SIZE");
  sub->add_option("--max-shard-size", a.max_shard_size, "Split the output into files of at most this size and an index")
      ->type_name("SIZE");
  add_threads_option(*sub, a.run.threads);
  add_run_options(*sub, a.run);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_merge(*arguments); }; });
}

}  // namespace mezzotint::cli
