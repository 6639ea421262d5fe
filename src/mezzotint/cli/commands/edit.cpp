#include "mezzotint/convert/edit.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/cli/context.h"
#include "mezzotint/cli/interrupt.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/progress.h"
#include "mezzotint/cli/size_text.h"

namespace mezzotint::cli {
namespace {

struct EditArguments {
  std::string input, layers, max_shard_size;
  std::vector<std::string> remove, rename, add, set_metadata, remove_metadata, set_fields, remove_fields;
  OutputArguments output;
  bool json = false;
};

std::vector<std::pair<std::string, std::string>> split_pairs(const std::vector<std::string>& texts,
                                                             const char* option) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw UsageError(fmt::format("{} '{}' has no '='. Write {} NAME=VALUE.", option, text, option));
    pairs.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return pairs;
}

// A regex may hold '=', so renames are split at the arrow.
std::vector<std::pair<std::string, std::string>> split_renames(const std::vector<std::string>& texts) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& text : texts) {
    const size_t arrow = text.find("=>");
    if (arrow == std::string::npos || arrow == 0)
      throw UsageError(fmt::format("--rename '{}' has no '=>'. Write --rename 'REGEX=>REPLACEMENT'.", text));
    pairs.emplace_back(text.substr(0, arrow), text.substr(arrow + 2));
  }
  return pairs;
}

convert::EditOptions edit_options(const EditArguments& arguments) {
  convert::EditOptions edits;
  edits.remove_tensors = arguments.remove;
  edits.rename_tensors = split_renames(arguments.rename);
  edits.add_tensors_from.assign(arguments.add.begin(), arguments.add.end());
  edits.set_metadata = split_pairs(arguments.set_metadata, "--set-metadata");
  edits.remove_metadata = arguments.remove_metadata;
  edits.layers = arguments.layers;
  edits.set_fields = split_pairs(arguments.set_fields, "--set-field");
  edits.remove_fields = arguments.remove_fields;
  if (!arguments.layers.empty() && edits.set_fields.empty() && edits.remove_fields.empty())
    throw UsageError("--layers chooses layers for --set-field and --remove-field; give one of them.");
  if (!arguments.max_shard_size.empty()) edits.max_shard_bytes = parse_size(arguments.max_shard_size);
  return edits;
}

int run_edit(const EditArguments& arguments) {
  const convert::EditOptions edits = edit_options(arguments);
  const auto model = checkpoint::Model::open(arguments.input);
  const ScopedInterrupt scoped;
  std::vector<std::string> changes;
  {
    ProgressDisplay progress("editing", arguments.output.quiet);
    convert::ExecuteOptions options;
    options.overwrite = arguments.output.force;
    options.cancel = &interrupted();
    options.progress = [&](const convert::Progress& p) { progress.update(p.bytes_done, p.bytes_total, p.current); };
    changes = convert::edit(model, arguments.output.output, edits, options);
  }
  if (arguments.json) {
    const nlohmann::ordered_json root{
        {"input", arguments.input}, {"output", arguments.output.output}, {"changes", changes}};
    fmt::print("{}\n", root.dump(2));
  } else if (!arguments.output.quiet) {
    for (const auto& line : changes) fmt::print("{}\n", line);
    fmt::print("{}: written with {} changes\n", arguments.output.output, changes.size());
  }
  return kDone;
}

}  // namespace

void add_edit(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<EditArguments>();
  auto& a = *arguments;
  CLI::App* sub = app.add_subcommand("edit", "Write a copy with tensors, metadata or marker fields changed");
  sub->add_option("input", a.input, "File, index or folder")->required()->type_name("INPUT");
  add_output_options(*sub, a.output, "Output file", true);
  const char* tensors = "Tensors";
  add_repeated(sub, "--remove", a.remove,
               "Remove tensors that match; a weight's scales and marker go with it (repeatable)")
      ->type_name("REGEX")
      ->group(tensors);
  add_repeated(sub, "--rename", a.rename, "'REGEX=>REPLACEMENT' with $1 ... (repeatable, in this order)")
      ->type_name("RULE")
      ->group(tensors);
  add_repeated(sub, "--add", a.add, "Add every tensor of this file (repeatable)")->type_name("FILE")->group(tensors);
  sub->add_option("--max-shard-size", a.max_shard_size, "Split the output into files of at most this size and an index")
      ->type_name("SIZE")
      ->group(tensors);
  const char* metadata = "Metadata";
  add_repeated(sub, "--set-metadata", a.set_metadata, "KEY=VALUE of the header's metadata (repeatable)")
      ->type_name("KEY=VALUE")
      ->group(metadata);
  add_repeated(sub, "--remove-metadata", a.remove_metadata, "Key of the header's metadata (repeatable)")
      ->type_name("KEY")
      ->group(metadata);
  const char* markers = "Markers of quantized layers";
  sub->add_option("--layers", a.layers, "Layers that the next two are for. Default: all")
      ->type_name("REGEX")
      ->group(markers);
  add_repeated(sub, "--set-field", a.set_fields, "NAME=VALUE; the value is JSON, or else a text (repeatable)")
      ->type_name("NAME=VALUE")
      ->group(markers);
  add_repeated(sub, "--remove-field", a.remove_fields, "Field to remove (repeatable)")
      ->type_name("NAME")
      ->group(markers);
  add_json_option(*sub, a.json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_edit(*arguments); }; });
}

}  // namespace mezzotint::cli
