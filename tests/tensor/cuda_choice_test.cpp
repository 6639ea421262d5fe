#include <gmock/gmock.h>

#include "mezzotint/tensor/cuda/choose_product.h"

// Which product each GPU gets: hardware and sizes as PyTorch and kernel/cuda check them.
namespace mezzotint::tensor::cuda {
namespace {

using formats::InputCodes;
using formats::MatmulForm;
using kernel::ElementCode;
using testing::HasSubstr;

constexpr float kScale = 1;
constexpr int kGenerations[] = {75, 80, 86, 89, 90, 100, 120};

MatmulForm form(ElementCode code, InputCodes input, bool by_row = false) {
  MatmulForm form;
  form.codes.data = &kScale;
  form.codes.code = code;
  form.input = input;
  (by_row ? form.row_scale : form.scale) = &kScale;
  return form;
}
const MatmulForm kInt8 = form(ElementCode::int8, InputCodes::int8, true);
const MatmulForm kInt4 = form(ElementCode::int4, InputCodes::int4, true);
const MatmulForm kBlocks = form(ElementCode::int8, InputCodes::int8_blocks);
const MatmulForm kE4m3 = form(ElementCode::e4m3, InputCodes::fp8_e4m3);
const MatmulForm kE4m3Rows = form(ElementCode::e4m3, InputCodes::fp8_e4m3, true);
const MatmulForm kE5m2 = form(ElementCode::e5m2, InputCodes::fp8_e5m2);
const MatmulForm kMx = form(ElementCode::e4m3, InputCodes::mx);
const MatmulForm kFp4 = form(ElementCode::e2m1, InputCodes::fp4);
const MatmulForm kWeightOnly = form(ElementCode::e4m3, InputCodes::none);

const Call kLarge{.m = 4096, .n = 3072, .k = 3072};

Gpu gpu(int capability, bool kernels = true) {
  return {.capability = capability, .runtime = 13000, .kernels = kernels && capability >= 80};
}

std::vector<Product> over_generations(const MatmulForm& form, const Call& call, const ProductOptions& options = {},
                                      bool kernels = true) {
  std::vector<Product> products;
  for (const int capability : kGenerations)
    products.push_back(choose_product(form, call, options, gpu(capability, kernels)).product);
  return products;
}

using enum Product;
using Products = std::vector<Product>;

TEST(CudaChoice, OverGenerations) {
  const ProductOptions dynamic, fixed{.input_scale = 0.1f};
  EXPECT_EQ(over_generations(kInt8, kLarge), Products(7, int_mm));
  EXPECT_EQ(over_generations(kInt4, kLarge), Products(7, int_mm));
  EXPECT_EQ(over_generations(kBlocks, kLarge),
            (Products{dequantize, int8_blocks, int8_blocks, int8_blocks, int8_blocks, int8_blocks, int8_blocks}));
  EXPECT_EQ(over_generations(kBlocks, kLarge, dynamic, false), Products(7, dequantize));
  EXPECT_EQ(over_generations(kE4m3, kLarge), (Products{dequantize, dequantize, dequantize, scaled_mm_rows,
                                                       scaled_mm_rows, scaled_mm_rows, scaled_mm_rows}));
  EXPECT_EQ(over_generations(kE4m3Rows, kLarge, fixed), over_generations(kE4m3, kLarge));
  EXPECT_EQ(over_generations(kE4m3, kLarge, fixed),
            (Products{dequantize, dequantize, dequantize, scaled_mm, scaled_mm, scaled_mm, scaled_mm}));
  EXPECT_EQ(over_generations(kE5m2, kLarge), Products(7, dequantize));
  EXPECT_EQ(over_generations(kMx, kLarge),
            (Products{dequantize, dequantize, dequantize, dequantize, dequantize, scaled_mm_mx, scaled_mm_mx}));
  EXPECT_EQ(over_generations(kFp4, kLarge),
            (Products{dequantize, dequantize, dequantize, dequantize, dequantize, scaled_mm_fp4, scaled_mm_fp4}));
  EXPECT_EQ(over_generations(kWeightOnly, kLarge), Products(7, dequantize));
}

TEST(CudaChoice, OverSizes) {
  const auto of = [](const MatmulForm& form, int64_t m, int64_t n, int64_t k, bool kernels) {
    return choose_product(form, {.m = m, .n = n, .k = k}, {}, gpu(120, kernels)).product;
  };
  // at::_int_mm: more than 16 rows, K and N multiples of 8; our kernel takes any.
  EXPECT_EQ(of(kInt8, 17, 64, 64, true), int_mm);
  EXPECT_EQ(of(kInt8, 16, 64, 64, true), int8_rows);
  EXPECT_EQ(of(kInt8, 16, 64, 64, false), int_mm) << "padded";
  EXPECT_EQ(of(kInt8, 1, 64, 64, false), int_mm);
  EXPECT_EQ(of(kInt8, 64, 64, 68, true), int8_rows);
  EXPECT_EQ(of(kInt8, 64, 68, 64, true), int8_rows);
  EXPECT_EQ(of(kInt8, 64, 64, 68, false), dequantize);
  EXPECT_EQ(of(kInt8, 64, 68, 64, false), dequantize);
  EXPECT_EQ(of(kInt8, 64, 64, (1 << 17) - 8, true), int_mm);
  EXPECT_EQ(of(kInt8, 64, 64, 1 << 17, true), dequantize) << "sums leave int32";
  EXPECT_EQ(of(kBlocks, 1, 128, 128, true), int8_blocks);
  EXPECT_EQ(of(kBlocks, 1, 128, 1 << 17, true), dequantize);
  // at::_scaled_mm: K and N multiples of 16, any M.
  EXPECT_EQ(of(kE4m3, 1, 16, 16, false), scaled_mm_rows);
  EXPECT_EQ(of(kE4m3, 1, 24, 16, false), dequantize);
  EXPECT_EQ(of(kE4m3, 1, 16, 24, false), dequantize);
  // Stored with padding: 32 for mxfp8; 16 codes of 4 bits are half of what at::_scaled_mm wants.
  EXPECT_EQ(of(kMx, 1, 33, 33, false), scaled_mm_mx);
  EXPECT_EQ(of(kFp4, 1, 33, 64, false), scaled_mm_fp4);
  EXPECT_EQ(of(kFp4, 1, 33, 17, false), scaled_mm_fp4) << "padded to 32";
  EXPECT_EQ(of(kFp4, 1, 33, 33, false), dequantize) << "padded to 48";
}

TEST(CudaChoice, OverDtypesAndOptions) {
  Call call = kLarge;
  for (const auto type : {at::kFloat, at::kHalf}) {
    call.type = type;
    const Choice choice = choose_product(kE4m3, call, {}, gpu(90));
    EXPECT_EQ(choice.product, scaled_mm);
    EXPECT_THAT(choice.why_not_faster, HasSubstr("bfloat16"));
  }
  EXPECT_EQ(choose_product(kE4m3, kLarge, {}, gpu(130)).product, scaled_mm) << "no kernel for rows is known there";
  for (const MatmulForm& form : {kInt8, kInt4, kBlocks, kE4m3, kMx, kFp4}) {
    const ProductOptions full{.full_precision_matrix_mult = true};
    EXPECT_EQ(over_generations(form, kLarge, full), Products(7, dequantize));
    Call backward = kLarge;
    backward.side = Side::backward;
    EXPECT_EQ(over_generations(form, backward), Products(7, dequantize));
  }
  EXPECT_EQ(choose_product(kMx, kLarge, {}, {.capability = 100, .runtime = 12060}).product, dequantize);
  EXPECT_EQ(choose_product(kInt8, kLarge, {}, {}).product, dequantize) << "what GPU it is is not known";
}

TEST(CudaChoice, SaysWhyNotFaster) {
  const auto why = [](const MatmulForm& form, const Call& call, const Gpu& gpu, const ProductOptions& options = {}) {
    return choose_product(form, call, options, gpu).why_not_faster;
  };
  EXPECT_EQ(why(kInt8, kLarge, gpu(90)), "");
  EXPECT_EQ(why(kE4m3, kLarge, gpu(90)), "");
  EXPECT_EQ(why(kE4m3, kLarge, gpu(86)), "fp8 products need compute capability 8.9, this GPU has 8.6");
  EXPECT_EQ(why(kE4m3, {.m = 64, .n = 64, .k = 100}, gpu(90)), "K = 100 is not a multiple of 16");
  EXPECT_EQ(why(kMx, kLarge, gpu(120)), "");
  EXPECT_EQ(why(kMx, kLarge, {.capability = 120, .runtime = 12060}),
            "block scales came with CUDA 12.8, libtorch has 12.6");
  EXPECT_EQ(why(kBlocks, kLarge, gpu(90, false)), "our kernels are not compiled in (MEZZOTINT_CUDA)");
  EXPECT_EQ(why(kBlocks, kLarge, gpu(75)), "our kernels need compute capability 8.0, this GPU has 7.5");
  EXPECT_EQ(why(kInt8, kLarge, {}), "the GPU's compute capability is not known");
  EXPECT_THAT(why(kE5m2, kLarge, gpu(90)), HasSubstr("e5m2"));
  EXPECT_THAT(why(kInt8, kLarge, gpu(90), {.full_precision_matrix_mult = true}), HasSubstr("full_precision"));
  EXPECT_THAT(why(MatmulForm{}, kLarge, gpu(90)), HasSubstr("no product"));
  for (const MatmulForm& form : {kInt8, kInt4, kBlocks, kE4m3, kE5m2, kMx, kFp4, kWeightOnly})
    for (const int capability : kGenerations) {
      const Choice choice = choose_product(form, kLarge, {}, gpu(capability));
      if (choice.product == dequantize) {
        EXPECT_NE(choice.why_not_faster, "");
      }
    }
}

TEST(CudaChoice, KnowsNoGpuWhereThereIsNone) {
  const Gpu cpu = gpu_of(at::Device(at::kCPU));
  EXPECT_EQ(cpu.capability, 0);
  EXPECT_FALSE(cpu.kernels);
}

}  // namespace
}  // namespace mezzotint::tensor::cuda
