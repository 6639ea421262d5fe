#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/tensor/cuda/operand.h"
#include "mezzotint/tensor/operations.h"
#include "mezzotint/tensor/quantized_tensor.h"

// Rows of a quantized table: gathered as codes, then decoded.
namespace mezzotint::tensor {
namespace {

at::Tensor gather(const StoredWeight& table, const at::Tensor& indices, at::ScalarType type) {
  const formats::Layout& layout = table.layout;
  const formats::Parameters parameters = table.parameters();
  const at::Tensor wanted = indices.to(at::kCPU, at::kLong).contiguous();
  const auto* rows = wanted.const_data_ptr<int64_t>();
  std::vector<int64_t> order(static_cast<size_t>(wanted.numel()));
  for (size_t i = 0; i < order.size(); ++i) {
    TORCH_CHECK_INDEX(rows[i] >= 0 && rows[i] < layout.rows, "index ", rows[i], " is out of range: the table has ",
                      layout.rows, " rows");
    order[i] = static_cast<int64_t>(i);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return rows[a] < rows[b]; });

  std::vector<int64_t> shape = indices.sizes().vec();
  shape.push_back(layout.cols);
  at::Tensor result = at::empty(shape, type);
  auto* out = static_cast<std::byte*>(result.mutable_data_ptr());
  const int64_t granule = layout.row_granule, bytes = static_cast<int64_t>(result.element_size());
  std::vector<float> decoded;
  int64_t first = -1;  // of the granule that was decoded last
  for (const int64_t at : order) {
    const int64_t row = rows[at], wanted_first = row / granule * granule;
    if (wanted_first != first) {
      first = wanted_first;
      const int64_t count = std::min(granule, layout.rows - first);
      decoded.resize(static_cast<size_t>(count * layout.cols));
      formats::decode_rows(layout, parameters, first, count,
                           parameters.tensors[0].data() + layout.stored_row(first) * layout.row_bytes, decoded.data());
    }
    kernel::cast({decoded.data() + (row - first) * layout.cols, DType::f32, 1, layout.cols, layout.cols},
                 dtype_of(type), out + at * layout.cols * bytes, layout.cols);
  }
  return result;
}

std::string embedding(const c10::OperatorHandle& op, torch::jit::Stack& stack) {
  const size_t count = op.schema().arguments().size();
  const at::Tensor table = torch::jit::peek(stack, 0, count).toTensor(),
                   indices = torch::jit::peek(stack, 1, count).toTensor();
  if (!is_quantized(table)) return "its table is not quantized";
  const QuantizedTensorImpl& weight = quantized(table);
  if (weight.transposed() || weight.stored()->layout.experts != 1 || table.dim() != 2)
    return "a table that is not a matrix";
  at::Tensor rows;
  if (weight.device().is_cpu()) {
    rows = gather(*weight.stored(), indices, table.scalar_type());
  } else {
    const std::optional<cuda::Operand> codes = cuda::operand_of(*weight.stored(), 0);
    if (!codes) return fmt::format("no kernel for {}", weight.device().str());
    std::vector<int64_t> shape = indices.sizes().vec();
    shape.push_back(codes->cols);
    rows = cuda::decode_rows(*codes, indices.reshape({-1}).to(weight.device(), at::kLong), table.scalar_type())
               .view(shape);
  }
  return finish(op, stack, rows);
}

}  // namespace

std::span<const Operation> gather_operations() {
  static const std::vector<Operation> operations = {{"aten::embedding", embedding}};
  return operations;
}

}  // namespace mezzotint::tensor
