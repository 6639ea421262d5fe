// Whole weights, scales included, against the formats of the table on the CPU.
#include <algorithm>
#include <map>

#include "cuda/backend.h"
#include "mezzotint/base/e4m3.h"
#include "mezzotint/formats/common/swizzle.h"
#include "mezzotint/formats/driver.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/hadamard.h"
#include "support/awkward.h"

namespace mezzotint::kernel::cuda::test {
namespace {

using formats::ChooseOptions;
using formats::Quantized;
using kernel::test::bytes_of;
using mezzotint::test::awkward_inputs;
using mezzotint::test::AwkwardInput;
using Shape2 = std::pair<int64_t, int64_t>;

template <class B>
using CudaFormats = OnEveryBackend<B>;
TYPED_TEST_SUITE(CudaFormats, Backends, BackendName);

/// A weight as a file has it.
struct Weight {
  DType dtype;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  Source on(const void* data) const { return {data, dtype, rows, cols, cols}; }
  formats::Tile tile() const { return {bytes.data(), dtype, 0, rows, 0, cols, cols}; }
};

Weight make_weight(const AwkwardInput& input, DType dtype, int64_t rows, int64_t cols, std::mt19937_64& rng) {
  const auto values = mezzotint::test::make_values(input, rng, rows, cols);
  Weight w{dtype, rows, cols, {}};
  w.bytes.resize(values.size() * static_cast<size_t>(bytes_of(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t code = dtype == DType::f32    ? std::bit_cast<uint32_t>(values[i])
                          : dtype == DType::bf16 ? Bf16::encode(values[i])
                                                 : Fp16::encode(values[i]);
    std::memcpy(w.bytes.data() + i * static_cast<size_t>(bytes_of(dtype)), &code, static_cast<size_t>(bytes_of(dtype)));
  }
  return w;
}

/// Bytes of the stored tensors by suffix; the codes are "weight".
using Stored = std::map<std::string, std::vector<uint8_t>>;

template <class T>
std::vector<uint8_t> bytes(const std::vector<T>& values) {
  const auto* p = reinterpret_cast<const uint8_t*>(values.data());
  return {p, p + values.size() * sizeof(T)};
}

/// What the CPU stores; nothing where the format refuses the shape. `format` may name options after a colon.
std::optional<Quantized> on_cpu(std::string_view format, const Weight& w, const Rounding& rounding) {
  const auto selection = formats::select_format(format);
  auto description = selection.format->describe({{w.rows, w.cols}}, selection.options);
  if (!description.layout) return std::nullopt;
  return formats::quantize(*description.layout, w.tile(), ChooseOptions{}, rounding, 1);
}

Stored stored(const Quantized& q) {
  Stored out;
  for (size_t i = 0; i < q.layout.tensors.size(); ++i) {
    const auto& tensor = q.parameters.tensors[i];
    const auto* p = reinterpret_cast<const uint8_t*>(tensor.data());
    out[q.layout.tensors[i].suffix] = {p, p + tensor.size()};
  }
  return out;
}

/// Checks `device(weight, rounding)` against a format for inputs that break quantizers, every source type and both
/// roundings.
template <class F>
void same_as(std::string_view name, const std::vector<Shape2>& shapes, F device) {
  auto rng = test_rng();
  int compared = 0;
  for (const AwkwardInput& input : awkward_inputs())
    for (const auto& [rows, cols] : shapes)
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        if (dtype != DType::f32 && rows * cols > 20000) continue;
        const Weight w = make_weight(input, dtype, rows, cols, rng);
        for (const Rounding rounding : {Rounding::nearest(), Rounding::stochastic(3, "w")}) {
          if (rounding.mode == Rounding::Mode::stochastic && dtype != DType::bf16) continue;
          const auto cpu = on_cpu(name, w, rounding);
          if (!cpu) continue;
          const Stored expected = stored(*cpu);
          const Stored got = device(w, rounding);
          for (const auto& [suffix, data] : got) {
            ASSERT_TRUE(expected.count(suffix)) << suffix;
            const auto& want = expected.at(suffix);
            ASSERT_EQ(data.size(), want.size()) << suffix;
            const auto [a, b] = std::mismatch(data.begin(), data.end(), want.begin());
            ASSERT_TRUE(a == data.end()) << name << " " << suffix << " byte " << a - data.begin() << " is "
                                         << static_cast<int>(*a) << ", not " << static_cast<int>(*b) << ": "
                                         << input.name << " " << rows << " x " << cols << " " << mezzotint::name(dtype);
          }
          ++compared;
        }
      }
  EXPECT_GT(compared, 50) << name;
}

const std::vector<Shape2> kAnyShape = {{1, 1}, {3, 17}, {65, 96}, {1, 300}, {300, 1}, {64, 33}, {14, 21}};
const std::vector<Shape2> kBlockShape = {{128, 128}, {256, 384}};
const std::vector<Shape2> kRotatedShape = {{1, 256}, {17, 512}, {40, 768}};

/// Scales by block and codes of one byte: every format with float32 scales.
template <class B>
Stored with_float_scales(const Weight& w, int64_t block_rows, int64_t block_cols, ScaleRule rule, float largest,
                         float floor, DType code, int lowest, const Rounding& rounding) {
  const int64_t down = block_rows == 0 ? 1 : w.rows / block_rows, across = block_cols == 0 ? 1 : w.cols / block_cols;
  const auto count = static_cast<size_t>(down * across);
  typename B::Memory x(w.bytes), scales(count * 4), multipliers(count * 4);
  typename B::Memory codes(static_cast<size_t>(w.rows * w.cols));
  const Source source = w.on(x.template as<void>());
  B::amax_blocks(source, block_rows, block_cols, scales.template as<float>(), across, static_cast<uint32_t*>(nullptr));
  B::scales_from_amax(scales.template as<float>(), multipliers.template as<float>(), down * across, rule, largest,
                      floor);
  const auto by = [&](float* data) { return Scales::blocks(data, across, block_rows, block_cols); };
  const ElementIndex index{0, static_cast<uint64_t>(w.cols)};
  if (code == DType::i8) {
    B::encode_int8(source, by(scales.template as<float>()), lowest, codes.template as<int8_t>(), w.cols, rounding,
                   index);
  } else {
    B::encode_fp8(source, by(multipliers.template as<float>()), code, codes.template as<uint8_t>(), w.cols, rounding,
                  index);
  }
  return {{"weight", codes.read()}, {"weight_scale", scales.read()}};
}

TYPED_TEST(CudaFormats, EightBitCodesUnderFloatScales) {
  using B = TypeParam;
  same_as("float8_e4m3fn", kAnyShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 0, 0, ScaleRule::divide, 448.0f, 0, DType::f8_e4m3, 0, r);
  });
  same_as("float8_e5m2", kAnyShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 0, 0, ScaleRule::divide, 57344.0f, 0, DType::f8_e5m2, 0, r);
  });
  same_as("float8_e4m3fn_rowwise", kAnyShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 1, 0, ScaleRule::reciprocal, 448.0f, 1e-12f, DType::f8_e4m3, 0, r);
  });
  same_as("float8_e4m3fn_blockwise:block_size=64", {{64, 64}, {128, 192}}, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 64, 64, ScaleRule::reciprocal, 448.0f, 1e-12f, DType::f8_e4m3, 0, r);
  });
  same_as("int8_tensorwise:scaling=tensor", kAnyShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 0, 0, ScaleRule::divide_floor, 127.0f, 1e-30f, DType::i8, -128, r);
  });
  same_as("int8_tensorwise:scaling=row", kAnyShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 1, 0, ScaleRule::divide_floor, 127.0f, 1e-30f, DType::i8, -128, r);
  });
  same_as("int8_blockwise", kBlockShape, [](const Weight& w, const Rounding& r) {
    return with_float_scales<B>(w, 128, 128, ScaleRule::divide_floor, 127.0f, 1e-8f, DType::i8, -127, r);
  });
}

template <class B>
struct Micro {
  typename B::Memory codes, scales, tensor_scale;
};

template <class B>
Micro<B> quantize_micro(Group group, const Weight& w, const Rounding& rounding) {
  const int64_t rows = group_padded(group, w.rows), cols = group_padded(group, w.cols);
  Micro<B> out{typename B::Memory(static_cast<size_t>(rows * cols / (group == Group::fp4_16 ? 2 : 1))),
               typename B::Memory(group_scale_bytes(group, w.rows, w.cols)), typename B::Memory(4)};
  typename B::Memory x(w.bytes);
  const Source source = w.on(x.template as<void>());
  float* tensor_scale = nullptr;
  if (group == Group::fp4_16) {
    tensor_scale = out.tensor_scale.template as<float>();
    B::amax_blocks(source, 0, 0, tensor_scale, 1, static_cast<uint32_t*>(nullptr));
    B::scales_from_amax(tensor_scale, static_cast<float*>(nullptr), 1, ScaleRule::fp4_tensor, 2688.0f, 0.0f);
  }
  B::quantize_groups(group, source, static_cast<const float*>(tensor_scale), 1e-8f, out.codes.template as<uint8_t>(),
                     out.scales.template as<void>(), rounding, ElementIndex{0, static_cast<uint64_t>(w.cols)});
  return out;
}

TYPED_TEST(CudaFormats, FourBitFloats) {
  same_as("nvfp4", kAnyShape, [](const Weight& w, const Rounding& r) {
    auto q = quantize_micro<TypeParam>(Group::fp4_16, w, r);
    return Stored{
        {"weight", q.codes.read()}, {"weight_scale", q.scales.read()}, {"weight_scale_2", q.tensor_scale.read()}};
  });
}

TYPED_TEST(CudaFormats, MicroscaledFloats) {
  same_as("mxfp8", kAnyShape, [](const Weight& w, const Rounding& r) {
    auto q = quantize_micro<TypeParam>(Group::fp8_32, w, r);
    return Stored{{"weight", q.codes.read()}, {"weight_scale", q.scales.read()}};
  });
}

TYPED_TEST(CudaFormats, MicroscaledWeightsDecodeAsOnTheCpu) {
  auto rng = test_rng();
  for (const auto& [group, name] : {std::pair{Group::fp4_16, "nvfp4"}, std::pair{Group::fp8_32, "mxfp8"}})
    for (const auto& [rows, cols] : kAnyShape) {
      const Weight w = make_weight(awkward_inputs()[1], DType::bf16, rows, cols, rng);
      const auto cpu = on_cpu(name, w, {});
      ASSERT_TRUE(cpu);
      const auto expected = formats::dequantize(cpu->layout, cpu->parameters, 1);
      auto q = quantize_micro<TypeParam>(group, w, {});
      typename TypeParam::Memory out(expected.size() * sizeof(float));
      const float* tensor_scale = group == Group::fp4_16 ? q.tensor_scale.template as<float>() : nullptr;
      TypeParam::dequantize_groups(group, q.codes.template as<const uint8_t>(), q.scales.template as<const uint8_t>(),
                                   tensor_scale, rows, cols, out.template as<void>(), DType::f32, cols);
      ASSERT_EQ(out.template read<float>(), expected) << name << " " << rows << " x " << cols;
    }
}

// Groups of 128 columns within a row are what int8_blockwise's other geometry stores.
TYPED_TEST(CudaFormats, ActivationsInGroupsOf128) {
  auto rng = test_rng();
  for (const AwkwardInput& input : awkward_inputs())
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Weight w = make_weight(input, dtype, 9, 384, rng);
      auto q = quantize_micro<TypeParam>(Group::int8_128, w, {});
      const auto expected =
          with_float_scales<Emulated>(w, 1, 128, ScaleRule::divide_floor, 127.0f, 1e-8f, DType::i8, -127, {});
      EXPECT_EQ(q.codes.read(), expected.at("weight")) << input.name;
      EXPECT_EQ(q.scales.read(), expected.at("weight_scale")) << input.name;
    }
  // A last group that is not full has the scale of what is there.
  const Weight narrow = make_weight(awkward_inputs()[0], DType::f32, 5, 200, rng);
  auto q = quantize_micro<TypeParam>(Group::int8_128, narrow, {});
  const auto scales = q.scales.template read<float>();
  const auto* x = reinterpret_cast<const float*>(narrow.bytes.data());
  for (int64_t r = 0; r < 5; ++r) {
    float top = 0;
    for (int64_t c = 128; c < 200; ++c) top = std::max(top, std::abs(x[r * 200 + c]));
    EXPECT_EQ(scales[static_cast<size_t>(2 * r + 1)], top / 127.0f);
  }
}

TYPED_TEST(CudaFormats, BlockedOffsetsAreThoseOfTheFiles) {
  for (const int64_t cols : {1, 4, 5, 12})
    for (int64_t r = 0; r < 300; ++r)
      for (int64_t c = 0; c < cols; ++c)
        ASSERT_EQ(
            device::blocked_offset(static_cast<uint32_t>(r), static_cast<uint32_t>(c), static_cast<uint32_t>(cols)),
            static_cast<uint64_t>(formats::swizzle::offset(r, c, cols)));
}

template <class B>
typename B::Memory rotated(const Weight& w, int64_t group) {
  typename B::Memory x(w.bytes), out(static_cast<size_t>(w.rows * w.cols) * sizeof(float));
  B::rotate_convrot(w.on(x.template as<void>()), group, out.template as<void>(), DType::f32, w.cols);
  return out;
}

TYPED_TEST(CudaFormats, RotationsHaveTheBitsOfTheCpu) {
  auto rng = test_rng();
  for (const int64_t group : {4, 16, 64, 256, 1024, 4096})
    for (const auto& [rows, groups] : {Shape2{1, 1}, {5, 3}, {9, 2}})
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        const int64_t cols = group * groups;
        const Weight w = make_weight(awkward_inputs()[1], dtype, rows, cols, rng);
        std::vector<float> expected(static_cast<size_t>(rows * cols));
        kernel::cast(w.on(w.bytes.data()), DType::f32, expected.data(), cols);
        const std::vector<float> plain = expected;
        kernel::rotate_convrot(expected.data(), rows * cols, group);
        auto out = rotated<TypeParam>(w, group);
        ASSERT_EQ(out.template read<float>(), expected) << group << " " << rows << " x " << cols;
        EXPECT_NE(expected, plain);
        // In place, and rounded to bf16.
        TypeParam::rotate_convrot(Source{out.template as<void>(), DType::f32, rows, cols, cols}, group,
                                  out.template as<void>(), DType::f32, cols);
        kernel::rotate_convrot(expected.data(), rows * cols, group);
        ASSERT_EQ(out.template read<float>(), expected);
      }
}

TYPED_TEST(CudaFormats, RotatedFourBitIntegers) {
  same_as("convrot_w4a4", kRotatedShape, [](const Weight& w, const Rounding& rounding) {
    using B = TypeParam;
    auto x = rotated<B>(w, 256);
    typename B::Memory scales(static_cast<size_t>(w.rows) * 4), codes(static_cast<size_t>(w.rows * w.cols / 2));
    const Source source{x.template as<void>(), DType::f32, w.rows, w.cols, w.cols};
    B::amax_blocks(source, 1, 0, scales.template as<float>(), 1, static_cast<uint32_t*>(nullptr));
    B::scales_from_amax(scales.template as<float>(), static_cast<float*>(nullptr), w.rows, ScaleRule::clamped_ratio,
                        7.0f, 1e-10f);
    B::encode_int4(source, Scales::per_row(scales.template as<float>()), codes.template as<uint8_t>(), w.cols / 2,
                   rounding, ElementIndex{0, static_cast<uint64_t>(w.cols)});
    return Stored{{"weight", codes.read()}, {"weight_scale", scales.read()}};
  });
}

// Scales are the CPU's: the GPU has no search for them.
TYPED_TEST(CudaFormats, CodesOfACodebook) {
  using B = TypeParam;
  for (const char* options : {"codes=codebook", "codes=uniform", "codes=asymmetric"})
    same_as(std::string("asym_w4a8_int8:group_size=16,") + options, kRotatedShape,
            [&](const Weight& w, const Rounding& rounding) {
              const auto cpu = on_cpu(std::string("asym_w4a8_int8:group_size=16,") + options, w, rounding);
              Stored given = stored(*cpu);
              auto x = rotated<B>(w, 256);
              typename B::Memory relative(given["weight_s_rel"]), channel(given["weight_s_channel"]);
              typename B::Memory codebook(given["weight_codebook"]), correction(given["weight_correction"]);
              const Codebook weight{
                  .rows = w.rows,
                  .cols = w.cols,
                  .group = 16,
                  .relative = relative.template as<uint8_t>(),
                  .channel = channel.template as<float>(),
                  .codebook = given["weight_codebook"].empty() ? nullptr : codebook.template as<float>(),
                  .correction = given["weight_correction"].empty() ? nullptr : correction.template as<float>()};
              typename B::Memory codes(static_cast<size_t>(w.rows * w.cols / 2));
              B::encode_codebook(weight, x.template as<const float>(), w.cols, codes.template as<uint8_t>(), rounding,
                                 ElementIndex{0, static_cast<uint64_t>(w.cols)});
              typename B::Memory out(static_cast<size_t>(w.rows * w.cols) * 4);
              B::decode_codebook(weight, codes.template as<const uint8_t>(), out.template as<void>(), DType::f32,
                                 w.cols);
              std::vector<float> expected(static_cast<size_t>(w.rows * w.cols));
              cpu->layout.format->decode(cpu->layout, cpu->parameters, 0, w.rows, 0, w.cols,
                                         cpu->parameters.tensors[0].data(), expected.data(), w.cols);
              EXPECT_TRUE(out.read() == bytes(expected));
              return Stored{{"weight", codes.read()}};
            });
}

}  // namespace
}  // namespace mezzotint::kernel::cuda::test
