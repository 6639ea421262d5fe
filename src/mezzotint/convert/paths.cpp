#include "mezzotint/convert/paths.h"

#include <algorithm>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/regex.h"
#include "mezzotint/io/reader.h"

namespace mezzotint::convert {
namespace {

namespace fs = std::filesystem;

std::string strip_suffix(std::string text, std::string_view suffix) {
  if (text.size() > suffix.size() && text.ends_with(suffix)) text.resize(text.size() - suffix.size());
  return text;
}

std::string model_name(const fs::path& input) {
  fs::path path = input;
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  if (path.filename() == "." || path.filename() == "..") path = fs::weakly_canonical(path);
  std::string name = strip_suffix(path.filename().string(), ".json");
  name = strip_suffix(std::move(name), ".index");
  name = strip_suffix(std::move(name), ".safetensors");
  for (const formats::Format* format : formats::all_formats())
    if (!format->quantized) name = strip_suffix(std::move(name), "_" + std::string(format->name));
  return name;
}

}  // namespace

std::vector<fs::path> expand_inputs(const std::vector<fs::path>& arguments) {
  std::vector<fs::path> inputs;
  for (const fs::path& argument : arguments) {
    std::error_code ignored;
    if (!fs::is_directory(argument, ignored)) {
      inputs.push_back(argument);
      continue;
    }
    try {
      io::Source::open(argument);
      inputs.push_back(argument);
    } catch (const Error& error) {
      if (error.name() != "ambiguous-folder") throw;
      static const Regex shard(R"(-\d{5}-of-\d{5}\.safetensors$)");
      std::vector<fs::path> found;
      for (const auto& entry : fs::directory_iterator(argument)) {
        if (entry.path().extension() != ".safetensors" || !entry.is_regular_file()) continue;
        if (shard.search(entry.path().filename().string())) throw;
        found.push_back(entry.path());
      }
      if (found.empty()) throw;
      std::sort(found.begin(), found.end());
      inputs.insert(inputs.end(), found.begin(), found.end());
    }
  }
  return inputs;
}

std::string file_label(const formats::Selection& selection) {
  const formats::Format& format = *selection.format;
  std::string label(format.name);
  constexpr std::string_view float8 = "float8_";
  if (label.starts_with(float8)) label = "fp8_" + label.substr(float8.size()) + "_scaled";
  for (const formats::OptionSpec& spec : format.options) {
    const std::string_view value = selection.options.text(spec.name);
    if (value == spec.default_value) continue;
    label += '_';
    if (spec.type == formats::OptionSpec::Type::choice)
      label += value;
    else
      label += std::string(spec.name) + std::string(spec.type == formats::OptionSpec::Type::flag ? "" : value);
  }
  return label;
}

fs::path default_output(const fs::path& input, const std::string& label) {
  fs::path folder = input.has_filename() ? input.parent_path() : input.parent_path().parent_path();
  return folder / (model_name(input) + "_" + label + ".safetensors");
}

fs::path choose_output(const fs::path& input, const fs::path& wanted, const std::string& label, bool several) {
  const fs::path automatic = default_output(input, label);
  if (wanted.empty()) return automatic;
  std::error_code ignored;
  const bool folder = !wanted.has_filename() || fs::is_directory(wanted, ignored);
  if (folder) return wanted / automatic.filename();
  if (several)
    throw Error({.name = "output-not-folder",
                 .problem = "several models cannot be written to one file",
                 .file = wanted.string(),
                 .advice = "Give an existing folder with -o, or leave -o out."});
  return wanted;
}

}  // namespace mezzotint::convert
