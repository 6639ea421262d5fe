#include "mezzotint/run/wan.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/detect.h"
#include "mezzotint/io/reader.h"
#include "mezzotint/io/writer.h"
#include "mezzotint/nn/load.h"
#include "mezzotint/tensor/dispatch.h"
#include "mezzotint/tensor/stored_weight.h"

namespace mezzotint::run {
namespace {

at::Tensor read(const io::Source& file, const std::string& name, bool required = true) {
  const size_t index = file.find(name);
  if (index == io::Source::npos) {
    if (!required) return {};
    throw Error({.name = "input-missing",
                 .problem = "the inputs lack a tensor",
                 .file = file.files().front().string(),
                 .tensor = name});
  }
  const io::TensorInfo& info = file.tensors()[index];
  at::Tensor values = at::empty(info.shape, tensor::scalar_type(info.dtype));
  file.read(index, 0, values.mutable_data_ptr(), info.bytes);
  return values;
}

void write(const std::string& path, const at::Tensor& out, bool overwrite) {
  const at::Tensor values = out.contiguous();
  const Shape shape(values.sizes().begin(), values.sizes().end());
  io::Writer writer(io::plan_output(path, {{"out", tensor::dtype_of(values.scalar_type()), shape}}, {}),
                    io::Writer::Mode::create, overwrite);
  writer.write(0, 0, values.const_data_ptr(), values.nbytes());
  writer.commit();
}

}  // namespace

void wan(const WanArguments& arguments) {
  const auto file = checkpoint::Model::open(arguments.model);
  const auto inputs = io::Source::open(arguments.inputs);
  const auto& tensors = file.source().tensors();
  const auto type = arguments.dtype == "fp32" ? at::kFloat : at::kBFloat16;
  const std::string prefix = convert::detect(tensors).prefix;
  models::wan::Transformer model(models::wan::config_from(tensors, prefix, arguments.heads));
  const nn::LoadReport report = nn::load(model, file, {.compute = type, .prefix = prefix, .to = arguments.to});
  if (!report.missing.empty())
    throw Error({.name = "tensor-missing",
                 .problem = fmt::format("the file lacks {} tensors of the model", report.missing.size()),
                 .file = arguments.model,
                 .tensor = report.missing.front()});
  const at::Tensor x = read(inputs, "x").to(type), text = read(inputs, "context").to(type);
  const tensor::DispatchScope scope;
  at::Tensor out;
  if (arguments.steps) {
    models::wan::SampleOptions sampling = arguments.sampling;
    sampling.steps = *arguments.steps;
    at::Tensor null = read(inputs, "context_null", sampling.guidance != 1);
    if (null.defined()) null = null.to(type);
    out = models::wan::sample(model, x, text, null, sampling);
  } else {
    out = model.forward(x, read(inputs, "timestep").to(at::kFloat), text);
  }
  write(arguments.output, out, arguments.overwrite);
  if (arguments.quiet) return;
  fmt::print("{} parameters, {:.1f} MB, {} tensors of the file not used\n", report.loaded.size(),
             static_cast<double>(report.bytes) * 1e-6, report.unexpected.size());
  if (scope.dequantized() > 0) fmt::print("{}", scope.summary());
}

}  // namespace mezzotint::run
