#include "mezzotint/tensor/files.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "mezzotint/io/reader.h"
#include "mezzotint/io/writer.h"
#include "mezzotint/tensor/quantized_tensor.h"

namespace mezzotint::tensor {

std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path) {
  const auto file = io::Source::open(path);
  std::map<std::string, at::Tensor> tensors;
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const io::TensorInfo& info = file.tensors()[i];
    const at::Tensor values = at::empty(info.shape, scalar_type(info.dtype));
    file.read(i, 0, values.mutable_data_ptr(), info.bytes);
    tensors.emplace(info.name, values);
  }
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                   bool overwrite) {
  std::vector<io::TensorSpec> planned;
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK(!is_quantized(tensor), name, " is quantized: nn::save writes it with its marker");
    values.push_back(tensor.detach().to(at::kCPU).contiguous());
    planned.push_back({name, dtype_of(tensor.scalar_type()), shape_of(tensor)});
  }
  io::Writer writer(io::plan_output(path, planned, {}), io::Writer::Mode::create, overwrite);
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].nbytes() > 0) writer.write(i, 0, values[i].const_data_ptr(), values[i].nbytes());
  writer.commit();
}

}  // namespace mezzotint::tensor
