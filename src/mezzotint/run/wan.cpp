#include "mezzotint/run/wan.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <optional>

#include "mezzotint/base/error.h"
#include "mezzotint/models/wan/load.h"
#include "mezzotint/nn/bypass/bypass.h"
#include "mezzotint/nn/recorder.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/files.h"

namespace mezzotint::run {
namespace {

at::Tensor input(const std::map<std::string, at::Tensor>& inputs, const std::string& name, const std::string& file) {
  const auto found = inputs.find(name);
  if (found == inputs.end())
    throw Error({.name = "input-missing", .problem = "the inputs lack a tensor", .file = file, .tensor = name});
  return found->second;
}

/// Computes the adapters beside the model's layers; returns a line on each. What has no place there is said at once.
std::string attach(nn::Bypass& bypass, const std::vector<convert::MergeLora>& loras,
                   const std::vector<adapter::AdapterFile>& files) {
  std::string text;
  for (size_t i = 0; i < loras.size(); ++i) {
    const nn::AttachReport& report = bypass.report(bypass.attach(files[i], {.strength = loras[i].strength}));
    for (const auto& [target, reason] : report.left_out)
      fmt::print(stderr, "{}: left out {}: {}\n", loras[i].file, target, reason);
    for (const auto& [key, reason] : files[i].unused())
      fmt::print(stderr, "{}: left out {}: {}\n", loras[i].file, key, reason);
    text +=
        fmt::format("{}: strength {:g}, beside {} weights\n", loras[i].file, loras[i].strength, report.attached.size());
  }
  return text;
}

}  // namespace

void wan(const WanArguments& arguments) {
  // What can be wrong is found before the model is loaded.
  for (const std::string& output : {arguments.output, arguments.calibration})
    if (!arguments.overwrite && std::filesystem::exists(output))
      throw Error({.name = "output-exists",
                   .problem = "the output exists",
                   .file = output,
                   .advice = "Give another name, or --force."});
  const auto type = arguments.dtype == "fp32" ? at::kFloat : at::kBFloat16;
  const auto inputs = tensor::read_tensors(arguments.inputs);
  const auto read = [&](const std::string& name) { return input(inputs, name, arguments.inputs); };
  const at::Tensor x = read("x").to(type), text = read("context").to(type);
  at::Tensor time, null;
  if (!arguments.steps)
    time = read("timestep").to(at::kFloat);
  else if (arguments.sampling.guidance != 1)
    null = read("context_null").to(type);

  std::vector<adapter::AdapterFile> loras;
  for (const convert::MergeLora& lora : arguments.loras) loras.push_back(adapter::AdapterFile::open(lora.file));

  nn::LoadOptions loading{.compute = type, .to = arguments.to};
  if (arguments.comfyui_inputs) loading.unscaled_inputs = tensor::UnscaledInputs::as_comfyui;
  nn::LoadReport report;
  const auto model = models::wan::load(arguments.model, loading, arguments.heads, &report);
  std::optional<nn::CalibrationRecorder> recorder;
  if (!arguments.calibration.empty()) recorder.emplace(*model);
  nn::Bypass bypass(*model);
  const std::string attached = attach(bypass, arguments.loras, loras);
  const tensor::DispatchScope scope;
  at::Tensor out;
  if (arguments.steps) {
    models::wan::SampleOptions sampling = arguments.sampling;
    sampling.steps = *arguments.steps;
    out = models::wan::sample(*model, x, text, null, sampling);
  } else {
    out = model->forward(x, time, text);
  }
  tensor::write_tensors(arguments.output, {{"out", out}}, arguments.overwrite);
  if (recorder) recorder->save(arguments.calibration, report.prefix, arguments.overwrite);
  if (arguments.quiet) return;
  fmt::print("{} parameters, {:.1f} MB, {} tensors of the file not used\n", report.loaded.size(),
             static_cast<double>(report.bytes) * 1e-6, report.unexpected.size());
  fmt::print("{}", attached);
  if (scope.dequantized() > 0) fmt::print("{}", scope.summary());
}

}  // namespace mezzotint::run
