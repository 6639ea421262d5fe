#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "mezzotint/base/integer.h"
#include "mezzotint/base/philox.h"
#include "mezzotint/formats/common/pieces.h"
#include "mezzotint/formats/driver.h"

namespace mezzotint::formats {

extern const Format format_toy_int4;

namespace toy_int4 {
namespace {

constexpr OptionSpec kOptions[] = {
    {"rotate", OptionSpec::Type::flag, "false", "", "store sums and differences of neighbouring columns"}};

int64_t up2(int64_t n) {
  return (n + 1) / 2 * 2;
}

Description describe(const LayerFacts& facts, const Options& options) {
  if (std::string refusal = refuse_shape(facts); !refusal.empty()) return {std::nullopt, std::move(refusal)};
  if (facts.kind != LayerKind::linear) return {std::nullopt, "only linear layers are stored as toy_int4"};
  Layout layout = matrix_layout(format_toy_int4, facts.shape, complete_options(format_toy_int4, options), DType::u8);
  layout.stored_rows = up2(layout.rows);
  layout.row_bytes = up2(layout.cols) / 2;
  layout.block_rows = 1;
  layout.transformed = layout.options.flag("rotate");
  layout.tensors = {{"weight", DType::u8, {layout.stored_rows, layout.row_bytes}},
                    {"weight_scale", DType::u8, {layout.rows, 1}},
                    {"weight_scale_2", DType::f32, {}}};
  return {std::move(layout), ""};
}

ChoosePlan choose_plan(const Layout& layout, const ChooseOptions&) {
  return {.passes = 2, .stats = static_cast<size_t>(layout.rows), .fused = true};
}

bool observe(const Layout&, const ChooseOptions&, int pass, const Tile& tile, float* stats, Parameters& parameters) {
  std::vector<float> scratch;
  const auto* values = static_cast<const float*>(float_tile(tile, scratch).data);
  bool non_finite = false;
  for (int64_t r = 0; r < tile.rows; ++r) {
    float amax = 0;
    for (int64_t c = 0; c < tile.cols; ++c) {
      const float x = std::fabs(values[r * tile.cols + c]);
      if (!std::isfinite(x)) non_finite = true;
      if (std::isfinite(x) && x > amax) amax = x;
    }
    if (pass == 0) {
      stats[tile.row0 + r] = amax;
    } else {
      const float u = std::ceil(amax / 7.0f / *floats(parameters, 2));
      parameters.tensors[1][static_cast<size_t>(tile.row0 + r)] = static_cast<std::byte>(std::clamp(u, 1.0f, 255.0f));
    }
  }
  return non_finite;
}

void finish(const Layout& layout, const ChooseOptions&, int, float* stats, Parameters& parameters) {
  const float amax = *std::max_element(stats, stats + layout.rows);
  *floats(parameters, 2) = amax == 0 ? 1.0f : std::max(amax / 1785.0f, std::numeric_limits<float>::min());
}

float row_scale(const Parameters& parameters, int64_t row) {
  return *floats(parameters, 2) * static_cast<float>(parameters.tensors[1][static_cast<size_t>(row)]);
}

void encode(const Layout& layout, const Parameters& parameters, const Tile& tile, const Rounding& rounding,
            std::byte* codes) {
  std::vector<float> scratch;
  const auto* values = static_cast<const float*>(float_tile(tile, scratch).data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float scale = row_scale(parameters, tile.row0 + r);
    for (int64_t c = 0; c < tile.cols; ++c) {
      const float y = values[r * tile.cols + c] / scale;
      const int64_t col = tile.col0 + c;
      const auto index = static_cast<uint64_t>((tile.row0 + r) * layout.cols + col);
      const int32_t code = rounding.mode == Rounding::Mode::stochastic
                               ? Int8::encode_stochastic(y, -7, 7, random_bits(rounding.key, index))
                               : Int8::encode(y, -7, 7);
      const int shift = col % 2 != 0 ? 4 : 0;
      std::byte& pair = codes[r * layout.row_bytes + col / 2];
      pair = (pair & ~(std::byte{15} << shift)) | (static_cast<std::byte>(code & 15) << shift);
    }
  }
}

void decode(const Layout& layout, const Parameters& parameters, int64_t row0, int64_t rows, int64_t col0, int64_t cols,
            const std::byte* codes, float* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const auto pair = static_cast<uint32_t>(codes[r * layout.row_bytes + (col0 + c) / 2]);
      const uint32_t nibble = (col0 + c) % 2 != 0 ? pair >> 4 : pair & 15;
      out[r * out_stride + c] =
          static_cast<float>(static_cast<int32_t>(nibble ^ 8) - 8) * row_scale(parameters, row0 + r);
    }
}

void error_bound(const Layout&, const Parameters& parameters, const Tile& tile, float* bound) {
  const auto* values = static_cast<const float*>(tile.data);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const double s = row_scale(parameters, tile.row0 + r);
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double x = std::abs(static_cast<double>(values[r * tile.row_stride + c]));
      bound[r * tile.cols + c] = std::isfinite(x)
                                     ? round_up(0.5 * s + x * 0x1p-22 + std::max(0.0, x - 7 * s) + 0x1p-149)
                                     : std::numeric_limits<float>::infinity();
    }
  }
}

void transform(const Layout& layout, float* rows, int64_t count, bool) {
  constexpr float kHalfRoot = 0.70710678f;  // the map is its own inverse
  for (int64_t r = 0; r < count; ++r, rows += layout.cols)
    for (int64_t c = 0; c + 1 < layout.cols; c += 2) {
      const float a = rows[c], b = rows[c + 1];
      rows[c] = (a + b) * kHalfRoot;
      rows[c + 1] = (a - b) * kHalfRoot;
    }
}

bool scale_by_power_of_two(const Layout&, Parameters& parameters, int exponent) {
  return scale_floats(parameters, 2, exponent);
}

void marker(const Layout& layout, nlohmann::ordered_json& object) {
  object["shape"] = layout.shape;
  object["rotate"] = layout.transformed;
}

Recognition recognise(const StoredLayer& layer) {
  if (layer.label != "toy_int4") return {};
  const auto broken = [](std::string problem) { return Recognition{Fit::broken, {}, {std::move(problem)}}; };
  const auto shape = layer.marker->find("shape");
  Shape logical;
  if (shape != layer.marker->end() && shape->is_array() && shape->size() == 2)
    for (const auto& dim : *shape)
      if (dim.is_number_integer()) logical.push_back(dim.get<int64_t>());
  if (logical.size() != 2) return broken("The marker has no shape of two numbers.");
  Options options;
  options.set("rotate", marker_flag(layer, "rotate", false) ? "true" : "false");
  const Description description = describe({logical, LayerKind::linear}, options);
  if (!description.layout) return broken("The marker's shape is refused: " + description.refusal + ".");
  Recognition recognition{Fit::labelled, *description.layout, {}};
  for (const StoredTensor& wanted : recognition.layout.tensors) {
    const TensorFacts* found = layer.find(wanted.suffix);
    if (found == nullptr)
      recognition.problems.push_back(wanted.suffix + " is missing.");
    else if (found->dtype != wanted.dtype || found->shape != wanted.shape)
      recognition.problems.push_back(tell(*found) + ", not " + std::string(name(wanted.dtype)) + " " +
                                     to_string(wanted.shape) + ".");
  }
  if (!recognition.problems.empty()) recognition.fit = Fit::broken;
  return recognition;
}

void verify(const Layout&, const Parameters& parameters, std::vector<std::string>& problems) {
  verify_positive(parameters, 2, "weight_scale_2", problems);
  if (std::count(parameters.tensors[1].begin(), parameters.tensors[1].end(), std::byte{0}) != 0)
    problems.push_back("weight_scale holds zeros.");
}

}  // namespace
}  // namespace toy_int4

const Format format_toy_int4{
    .name = "toy_int4",
    .summary = "4-bit integers, scales on two levels (a toy)",
    .options = toy_int4::kOptions,
    .support = {.comfyui = false, .loaders = "nothing", .fast_on = "nothing", .nearest = "int8_tensorwise"},
    .describe = toy_int4::describe,
    .choose_plan = toy_int4::choose_plan,
    .observe = toy_int4::observe,
    .finish = toy_int4::finish,
    .encode = toy_int4::encode,
    .decode = toy_int4::decode,
    .error_bound = toy_int4::error_bound,
    .transform = toy_int4::transform,
    .scale_by_power_of_two = toy_int4::scale_by_power_of_two,
    .marker = toy_int4::marker,
    .recognise = toy_int4::recognise,
    .verify = toy_int4::verify,
};

}  // namespace mezzotint::formats
