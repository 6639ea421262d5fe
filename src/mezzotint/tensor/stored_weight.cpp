#include "mezzotint/tensor/stored_weight.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/typeid.h>
#include <fmt/format.h>

#include <utility>

#include "mezzotint/base/error.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/formats/parallel.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/tensor/cuda/product.h"

namespace mezzotint::tensor {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::f32, at::kFloat},
    {DType::bf16, at::kBFloat16},
    {DType::f16, at::kHalf},
    {DType::f64, at::kDouble},
    {DType::u8, at::kByte},
    {DType::i8, at::kChar},
    {DType::i16, at::kShort},
    {DType::i32, at::kInt},
    {DType::i64, at::kLong},
    {DType::f8_e4m3, at::kFloat8_e4m3fn},
    {DType::f8_e5m2, at::kFloat8_e5m2},
    {DType::f8_e8m0, at::kFloat8_e8m0fnu},
    {DType::boolean, at::kBool},
    {DType::u16, at::kUInt16},
    {DType::u32, at::kUInt32},
    {DType::u64, at::kUInt64},
};

bool is_source(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

/// Codes of a whole weight, written where they stay: nothing is held twice.
at::Tensor encoded(const formats::Layout& layout, const formats::Parameters& parameters, const formats::Tile& whole,
                   const Rounding& rounding, int threads) {
  at::Tensor codes = at::zeros(layout.tensors[0].shape, scalar_type(layout.tensors[0].dtype));
  auto* bytes = static_cast<std::byte*>(codes.mutable_data_ptr());
  const auto row_bytes = whole.row_stride * static_cast<int64_t>(facts(whole.dtype).bits / 8);
  const auto tiles = formats::row_tiles(layout, formats::rows_per_tile(layout, whole.dtype, 256 << 10));
  formats::parallel_for(tiles.size(), threads, [&](size_t index) {
    std::vector<float> scratch;
    formats::Tile tile = whole;
    tile.row0 = tiles[index].row0;
    tile.rows = tiles[index].rows;
    tile.data = static_cast<const std::byte*>(whole.data) + tile.row0 * row_bytes;
    formats::encode_tile(layout, parameters, tile, rounding, bytes + layout.stored_row(tile.row0) * layout.row_bytes,
                         scratch);
  });
  return codes;
}

std::vector<at::Tensor> stored_tensors(const formats::Layout& layout, formats::Parameters& parameters,
                                       at::Tensor codes) {
  std::vector<at::Tensor> tensors = {std::move(codes)};
  for (size_t i = 1; i < layout.tensors.size(); ++i) {
    tensors.push_back(at::empty(layout.tensors[i].shape, scalar_type(layout.tensors[i].dtype)));
    const auto& bytes = parameters.tensors[i];
    std::copy_n(bytes.data(), bytes.size(), static_cast<std::byte*>(tensors.back().mutable_data_ptr()));
    parameters.tensors[i] = {};
  }
  return tensors;
}

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  for (const auto& [ours, theirs] : kTypes)
    if (ours == dtype) return theirs;
  throw Error({.name = "bad-dtype", .problem = "libtorch has no such dtype", .found = std::string(name(dtype))});
}

DType dtype_of(at::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes)
    if (theirs == type) return ours;
  throw Error({.name = "bad-dtype", .problem = "no file has such a dtype", .found = c10::toString(type)});
}

formats::Parameters StoredWeight::parameters() const {
  TORCH_CHECK(device().is_cpu(), "the bytes of a weight on ", device(), " cannot be read here");
  return addresses();
}

formats::Parameters StoredWeight::addresses() const {
  formats::Parameters views;
  for (const at::Tensor& tensor : tensors)
    views.tensors.push_back(
        formats::Bytes::view({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}));
  return views;
}

size_t StoredWeight::bytes() const {
  size_t sum = 0;
  for (const at::Tensor& tensor : tensors) sum += tensor.nbytes();
  return sum;
}

StoredWeight quantize(const at::Tensor& weight, std::string_view format, const QuantizeOptions& options) {
  const formats::Selection selection = formats::select_format(format);
  const bool convolution = weight.dim() > 3;
  const at::Tensor rows = convolution ? weight.flatten(1) : weight;
  const Shape shape = shape_of(rows);
  const auto kind = shape.size() == 3 ? formats::LayerKind::expert_bank : formats::LayerKind::linear;
  const formats::Description description =
      selection.format->describe({.shape = shape, .kind = kind}, selection.options);
  if (!description.layout)
    throw Error({.name = "shape-refused",
                 .problem = fmt::format("{} cannot store this shape: {}", selection.label(), description.refusal),
                 .found = to_string(shape)});
  return quantize(weight, *description.layout, options);
}

StoredWeight quantize(const at::Tensor& weight, const formats::Layout& layout, const QuantizeOptions& options) {
  const bool convolution = weight.dim() > 3;
  const auto rows = convolution ? weight.flatten(1) : weight;
  TORCH_CHECK(rows.sizes() == at::IntArrayRef(layout.shape), "a weight of shape ", weight.sizes(),
              " cannot take the layout of one of shape ", at::IntArrayRef(layout.shape));
  const at::Device device = weight.device();
  at::Tensor source = rows.detach().to(at::kCPU);
  if (!is_source(source.scalar_type())) source = source.to(at::kFloat);
  source = source.contiguous();
  const formats::Tile whole{.data = source.const_data_ptr(),
                            .dtype = dtype_of(source.scalar_type()),
                            .rows = layout.total_rows(),
                            .cols = layout.cols,
                            .row_stride = layout.cols};
  formats::ChooseOptions choose{.effort = options.effort};
  at::Tensor column_weight;
  if (options.column_weight) {
    column_weight = options.column_weight->to(at::kCPU, at::kFloat).contiguous();
    TORCH_CHECK(column_weight.numel() == layout.cols, "one column weight for every column is wanted");
    choose.column_weight = {column_weight.const_data_ptr<float>(), static_cast<size_t>(layout.cols)};
  }
  formats::Parameters parameters = formats::choose_parameters(layout, whole, choose, options.threads);
  StoredWeight stored{.layout = layout};
  if (convolution) stored.convolution = shape_of(weight);
  stored.tensors =
      stored_tensors(layout, parameters, encoded(layout, parameters, whole, options.rounding, options.threads));
  return device.is_cpu() ? stored : to_device(stored, device);
}

at::Tensor dequantize(const StoredWeight& weight, at::ScalarType type) {
  TORCH_CHECK(is_source(type), "a weight is dequantized to float32, bfloat16 or float16, not to ", type);
  if (!weight.device().is_cpu()) return cuda::decode_all(weight, type).view(weight.shape());
  const formats::Layout& layout = weight.layout;
  const formats::Parameters parameters = weight.parameters();
  at::Tensor values = at::empty(weight.shape(), type);
  auto* out = static_cast<std::byte*>(values.mutable_data_ptr());
  const auto tiles = formats::row_tiles(layout, formats::rows_per_tile(layout, DType::f32, 1 << 20));
  formats::parallel_for(tiles.size(), 0, [&](size_t index) {
    const formats::RowRange& range = tiles[index];
    const std::byte* codes = parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes;
    const int64_t first = range.row0 * layout.cols, count = range.rows * layout.cols;
    std::vector<float> scratch;
    if (type == at::kBFloat16)
      return formats::decode_rows(layout, parameters, range.row0, range.rows, codes,
                                  reinterpret_cast<uint16_t*>(out) + first, scratch);
    if (type == at::kFloat)
      return formats::decode_rows(layout, parameters, range.row0, range.rows, codes,
                                  reinterpret_cast<float*>(out) + first);
    scratch.resize(static_cast<size_t>(count));
    formats::decode_rows(layout, parameters, range.row0, range.rows, codes, scratch.data());
    kernel::cast({scratch.data(), DType::f32, 1, count, count}, DType::f16, out + first * 2, count);
  });
  return values;
}

StoredWeight to_device(const StoredWeight& weight, at::Device device) {
  StoredWeight moved{.layout = weight.layout, .convolution = weight.convolution};
  for (const at::Tensor& tensor : weight.tensors) moved.tensors.push_back(tensor.to(device));
  return moved;
}

StoredWeight clone(const StoredWeight& weight) {
  StoredWeight copy{.layout = weight.layout, .convolution = weight.convolution};
  for (const at::Tensor& tensor : weight.tensors) copy.tensors.push_back(tensor.clone());
  return copy;
}

}  // namespace mezzotint::tensor
