#include <nlohmann/json.hpp>

#include "mezzotint/formats/common/int8_codes.h"
#include "mezzotint/formats/common/matmul_forms.h"
#include "mezzotint/formats/int8_tensorwise/choose.h"
#include "mezzotint/formats/int8_tensorwise/layout.h"
#include "mezzotint/kernel/hadamard.h"

namespace mezzotint::formats {
namespace int8_tensorwise {
namespace {

constexpr int kLowest = -128;

constexpr Alias kAliases[] = {{"int8", "scaling=row"},
                              {"int8_row", "scaling=row"},
                              {"int8_tensor", "scaling=tensor"},
                              {"int8_axiswise", "scaling=row"},
                              {"int8_convrot", "scaling=row,convrot=true"}};
constexpr OptionSpec kOptions[] = {
    {kScaling, OptionSpec::Type::choice, "tensor", "tensor|row",
     "one scale for the whole weight, or one for every row (more accurate)"},
    {kConvrot, OptionSpec::Type::flag, "false", "",
     "rotate groups of inputs in front of the codes, which spreads outliers; implies scaling=row"},
    {kGroupsize, OptionSpec::Type::choice, "256", "4|16|64|256|1024|4096",
     "inputs that are rotated together: a power of 4, because ConvRot's matrix exists for no other size"}};

kernel::Scales scales(const Layout& layout, const Parameters& parameters, int64_t row0) {
  return {.data = floats(parameters, 1),
          .block_rows = by_row(layout) ? 1 : layout.rows,
          .block_cols = 0,
          .stride = 1,
          .row0 = row0};
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  int8_codes::encode(layout, scales(layout, parameters, tile.row0), kLowest, tile, rounding, codes);
}

template <class Out>
void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, Out* out, int64_t out_stride) {
  int8_codes::decode(layout, scales(layout, parameters, row0), rows, col0, cols, codes, out, out_stride);
}

void error_bound(const Layout& layout, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t row = tile.row0 + r;
    const float scale = floats(parameters, 1)[by_row(layout) ? row : row / layout.rows];
    for (int64_t c = 0; c < tile.cols; ++c)
      bound[r * tile.cols + c] = int8_codes::error_bound(values[r * tile.row_stride + c], scale);
  }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 1, exponent);
}

MatmulForm matmul_form(const Layout& layout, const Parameters& parameters, int64_t expert) {
  const int64_t group = layout.transformed ? layout.options.integer(kGroupsize) : 0;
  if (layout.transformed && !kernel::is_convrot_group(group)) return {};  // Sylvester's: decoded
  MatmulForm form = matmul_forms::scaled(layout, parameters, expert, kernel::ElementCode::int8, InputCodes::int8);
  form.rotation = group;
  return form;
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  if (layout.transformed) {
    object[kConvrot] = true;
    object[kGroupsize] = layout.options.integer(kGroupsize);
  }
  if (by_row(layout)) object["per_row"] = true;
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 1, "weight_scale", problems);
}

}  // namespace
}  // namespace int8_tensorwise

extern const Format format_int8_tensorwise;
const Format format_int8_tensorwise{
    .name = "int8_tensorwise",
    .summary = "8-bit integers, one scale per weight or per row, rotated if asked",
    .aliases = int8_tensorwise::kAliases,
    .options = int8_tensorwise::kOptions,
    .support = {.comfyui = true,
                .loaders = "ComfyUI (layers and embeddings)",
                .fast_on = "NVIDIA SM 7.5 and newer, and any CPU"},
    .describe = int8_tensorwise::describe,
    .choose_plan = int8_tensorwise::choose_plan,
    .observe = int8_tensorwise::observe,
    .finish = int8_tensorwise::finish,
    .encode = int8_tensorwise::encode,
    .decode = int8_tensorwise::decode,
    .decode_bf16 = int8_tensorwise::decode,
    .error_bound = int8_tensorwise::error_bound,
    .transform = int8_tensorwise::transform,
    .scale_by_power_of_two = int8_tensorwise::scale_by_power_of_two,
    .scale_update = ScaleUpdate::enough,
    .matmul_form = int8_tensorwise::matmul_form,
    .marker = int8_tensorwise::marker,
    .recognise = int8_tensorwise::recognise,
    .verify = int8_tensorwise::verify,
};

}  // namespace mezzotint::formats
