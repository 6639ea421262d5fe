#include "mezzotint/convert/inspect.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "mezzotint/checkpoint/marker.h"
#include "mezzotint/cli/context.h"
#include "mezzotint/cli/model_options.h"
#include "mezzotint/cli/size_text.h"
#include "mezzotint/cli/table.h"
#include "mezzotint/cli/terminal.h"
#include "mezzotint/convert/report/command.h"

namespace mezzotint::cli {
namespace {

using checkpoint::Model;
using checkpoint::Role;

struct InspectArguments {
  std::string file;
  bool layers = false, json = false;
};

std::string support_text(const convert::StorageShare& share) {
  if (!share.foreign.empty()) return "not known to this version";
  if (share.format == nullptr) return "";
  const auto& support = share.format->support;
  if (support.comfyui) return "ComfyUI";
  return fmt::format("not ComfyUI{}", support.nearest.empty() ? "" : fmt::format(" (nearest: {})", support.nearest));
}

// One line per weight or plain tensor: name, how it is stored, its logical shape, its bytes.
struct LayerLine {
  std::string name, stored, marker;
  Shape shape;
  uint64_t bytes = 0;
};

std::vector<LayerLine> layer_lines(const Model& model) {
  std::vector<LayerLine> lines;
  const auto& tensors = model.source().tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t owner = model.layer_of(i);
    if (owner == Model::npos) {
      lines.push_back({tensors[i].name, std::string(name(tensors[i].dtype)), "", tensors[i].shape, tensors[i].bytes});
    } else if (model.role(i) == Role::codes) {
      const auto& layer = model.layers()[owner];
      uint64_t bytes = 0;
      for (const size_t part : layer.parts) bytes += tensors[part].bytes;
      lines.push_back({layer.name, formats::Selection{layer.layout.format, layer.layout.options}.label(), layer.marker,
                       layer.layout.shape, bytes});
    }
  }
  return lines;
}

std::string made_by(const Model& model, const convert::Origin& origin) {
  return convert::convert_command(origin.recipe, "INPUT", model.source().files().front().string());
}

nlohmann::ordered_json inspection_json(const Model& model, const convert::Inspection& inspection, bool layers) {
  nlohmann::ordered_json root;
  auto& files = root["files"] = nlohmann::ordered_json::array();
  for (const auto& file : model.source().files()) files.push_back(file.string());
  root["bytes"] = inspection.file_bytes;
  root["tensors"] = model.source().tensors().size();
  root["elements"] = inspection.elements;
  root["bits_per_weight"] = inspection.bits_per_weight;
  auto& components = root["components"] = nlohmann::ordered_json::array();
  for (const auto& [component, detection] : inspection.components)
    components.push_back({{"name", component.name},
                          {"prefix", component.prefix},
                          {"tensors", component.tensors},
                          {"bytes", component.bytes},
                          {"architecture", detection.preset->name},
                          {"variant", detection.variant},
                          {"confidence", detection.confidence},
                          {"reason", detection.reason}});
  auto& storage = root["storage"] = nlohmann::ordered_json::array();
  for (const auto& share : inspection.shares)
    storage.push_back({{"label", share.label},
                       {"quantized", share.format != nullptr || !share.foreign.empty()},
                       {"tensors", share.tensors},
                       {"elements", share.elements},
                       {"bytes", share.bytes},
                       {"loaders", share.format != nullptr ? share.format->support.loaders : std::string_view()}});
  root["quantized_layers"] = model.layers().size();
  root["dialects"] = inspection.dialects;
  root["comfyui_loads"] = inspection.comfyui_loads;
  auto& metadata = root["metadata"] = nlohmann::ordered_json::object();
  for (const auto& [key, value] : model.source().metadata()) metadata[key] = value;
  const auto& origin = inspection.origin;
  root["recipe"] = origin ? nlohmann::ordered_json::parse(origin->recipe, nullptr, false) : nlohmann::ordered_json();
  root["command"] = origin ? nlohmann::ordered_json(made_by(model, *origin)) : nlohmann::ordered_json();
  if (!layers) return root;
  auto& list = root["layers"] = nlohmann::ordered_json::array();
  for (const auto& line : layer_lines(model))
    list.push_back({{"name", line.name},
                    {"stored", line.stored},
                    {"shape", line.shape},
                    {"bytes", line.bytes},
                    {"marker", line.marker.empty() ? nlohmann::ordered_json()
                                                   : nlohmann::ordered_json::parse(line.marker, nullptr, false)}});
  return root;
}

void print_components(const convert::Inspection& inspection) {
  for (const auto& [component, detection] : inspection.components) {
    fmt::print("{}{}: {} tensors, {}\n", component.name,
               component.prefix.empty() ? "" : fmt::format(" ({}*)", component.prefix), component.tensors,
               size_text(component.bytes));
    fmt::print("    architecture: {}{}: {}\n", detection.preset->name,
               detection.variant.empty() ? "" : fmt::format(" ({})", detection.variant), detection.reason);
  }
}

void print_storage(const convert::Inspection& inspection) {
  Table table({"STORED AS", ">TENSORS", ">ELEMENTS", ">SIZE", "LOADED BY"});
  for (const auto& share : inspection.shares)
    table.add({share.label, fmt::format("{}", share.tensors), fmt::format("{}", share.elements), size_text(share.bytes),
               support_text(share)});
  fmt::print("{}", table.to_text());
}

void print_metadata(const Model& model) {
  for (const auto& [key, value] : model.source().metadata()) {
    const bool structured = key == checkpoint::kHeaderKey || convert::is_origin_key(key);
    const bool longer = structured || value.size() > 60 || value.find('\n') != std::string::npos;
    fmt::print("    {} = {}\n", key, longer ? fmt::format("({} characters)", value.size()) : value);
  }
}

void print_text(const Model& model, const convert::Inspection& inspection, bool layers) {
  for (const auto& file : model.source().files()) fmt::print("{}\n", coloured(file.string(), Colour::bold, stdout));
  fmt::print("{}, {} tensors, {} elements", size_text(inspection.file_bytes), model.source().tensors().size(),
             inspection.elements);
  if (inspection.bits_per_weight > 0) fmt::print(", {:.3f} bits per weight", inspection.bits_per_weight);
  fmt::print("\n");
  print_components(inspection);
  print_storage(inspection);
  if (!model.layers().empty())
    fmt::print("{} quantized layers, marked by {}; {}\n", model.layers().size(), fmt::join(inspection.dialects, ", "),
               inspection.comfyui_loads ? "ComfyUI loads them" : "ComfyUI cannot load all of them");
  if (!model.source().metadata().empty()) fmt::print("metadata:\n");
  print_metadata(model);
  if (const auto& origin = inspection.origin) {
    fmt::print("recipe: {}\nmade by: {}\n", origin->recipe, made_by(model, *origin));
    if (!origin->version.empty())
      fmt::print("with: mezzotint {}{}\n", origin->version, origin->kernels.empty() ? "" : ", " + origin->kernels);
  }
  for (const auto& finding : model.findings())
    if (finding.severity != checkpoint::Severity::note) {
      fmt::print("{}\n", coloured("problems were found; `mezzotint verify` lists them", Colour::yellow, stdout));
      break;
    }
  if (!layers) return;
  Table table({"NAME", "STORED AS", "SHAPE", ">SIZE", "MARKER"});
  for (const auto& line : layer_lines(model))
    table.add({line.name, line.stored, to_string(line.shape), size_text(line.bytes), line.marker});
  fmt::print("{}", table.to_text());
}

int run_inspect(const InspectArguments& arguments) {
  const auto model = Model::open(arguments.file);
  const auto inspection = convert::inspect(model);
  if (arguments.json)
    fmt::print("{}\n", inspection_json(model, inspection, arguments.layers).dump(2));
  else
    print_text(model, inspection, arguments.layers);
  return kDone;
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* sub = app.add_subcommand("inspect", "Say what a file is: architecture, formats, sizes, who loads it");
  sub->add_option("file", arguments->file, "File, index or folder")->required()->type_name("FILE");
  sub->add_flag("--layers", arguments->layers, "Also list every layer");
  add_json_option(*sub, arguments->json);
  sub->callback([arguments, &context] { context.action = [arguments] { return run_inspect(*arguments); }; });
}

}  // namespace mezzotint::cli
