#include "mezzotint/tensor/dispatch.h"

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <gmock/gmock.h>
#include <torch/types.h>

#include <cstdlib>
#include <filesystem>

#include "mezzotint/kernel/isa.h"
#include "tensor/operands.h"

// What a scope tells about the kernels that ran.
namespace mezzotint::tensor {
namespace {

using test::some_weight;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

DispatchRow row_of(const at::Tensor& x, const at::Tensor& q) {
  const DispatchScope scope;
  at::linear(x, q);
  TORCH_CHECK(scope.rows().size() == 1, "one operation is wanted");
  return scope.rows()[0];
}

std::string level(kernel::Isa isa) {
  return std::string(kernel::name(isa));
}

TEST(Dispatch, TellsTheKernelOfEveryLayer) {
  const at::Tensor q = from_float(some_weight(), "int8_row"), x = some_weight(16, 512, at::kBFloat16, 3);
  const at::Tensor named = test::with_options(q, {.name = "blocks.0.ffn.0"});
  DispatchScope scope;
  at::linear(x, named);
  at::linear(x, named);
  at::mm(x, named.t());
  named.sum();
  ASSERT_EQ(scope.rows().size(), 3u);
  const DispatchRow row = scope.rows()[0];
  EXPECT_EQ(row.operation, "aten::linear");
  EXPECT_EQ(row.layer, "blocks.0.ffn.0");
  EXPECT_EQ(row.format, "int8_tensorwise:scaling=row");
  EXPECT_THAT(row.kernel, StartsWith("int8 x int8, "));
  EXPECT_FALSE(row.dequantized);
  EXPECT_EQ(row.calls, 2u);
  EXPECT_EQ(scope.rows()[2].kernel, "dequantized");
  EXPECT_EQ(scope.rows()[2].reason, "no kernel");
  EXPECT_TRUE(scope.rows()[2].dequantized);
  EXPECT_EQ(scope.dequantized(), 1u);
  EXPECT_THAT(scope.summary(), testing::AllOf(HasSubstr("blocks.0.ffn.0"), HasSubstr("int8 x int8"),
                                              HasSubstr("aten::sum"), HasSubstr("why not faster")));
}

TEST(Dispatch, ReasonsComeFromWhatRan) {
  const at::Tensor fp8 = from_float(some_weight(), "float8_e4m3fn"), int8 = from_float(some_weight(), "int8_row"),
                   x = some_weight(16, 512, at::kBFloat16, 3);
  const bool bf16 = kernel::enabled(kernel::Isa::avx512bf16), amx = kernel::enabled(kernel::Isa::amx);
  EXPECT_THAT(row_of(x, fp8).kernel, HasSubstr(bf16 ? "e4m3 x e4m3 in bf16" : "e4m3 x e4m3 in float32"));
  EXPECT_THAT(row_of(x, test::full_precision(fp8)).kernel, HasSubstr("e4m3 x bf16"));
  EXPECT_THAT(row_of(x, test::full_precision(fp8)).reason, HasSubstr("full_precision_matrix_mult is set"));
  const DispatchRow floats = row_of(x.to(at::kFloat), test::full_precision(fp8));
  EXPECT_THAT(floats.kernel, StartsWith("e4m3 x float32 in float32"));
  EXPECT_THAT(floats.reason, HasSubstr("inputs are float32"));
  EXPECT_THAT(row_of(x.to(at::kHalf), test::full_precision(fp8)).reason, HasSubstr("inputs are float16"));
  EXPECT_THAT(row_of(x, from_float(some_weight(), "nvfp4")).kernel, StartsWith("e2m1 x e2m1"));
  EXPECT_THAT(row_of(x, int8).reason, amx ? testing::Matcher<std::string>("") : HasSubstr("AMX"));
  if (!kernel::machine_has(kernel::Isa::amx)) {
    EXPECT_EQ(row_of(x, int8).reason, "this CPU has no AMX");
  }
  EXPECT_THAT(row_of(x, from_float(some_weight(), "asym_w4a8_int8:codes=asymmetric")).kernel,
              StartsWith("decoded float32"));
  for (const kernel::IsaFacts& facts : kernel::all_isas()) {
    if (!kernel::machine_has(facts.isa)) continue;
    const kernel::ScopedIsaCap cap(facts.isa);
    const kernel::Isa ran = facts.isa == kernel::Isa::avx512
                                ? kernel::machine_has(kernel::Isa::avxvnni) ? kernel::Isa::avxvnni : kernel::Isa::avx2
                            : facts.isa == kernel::Isa::avx512bf16 ? kernel::Isa::avx512vnni
                                                                   : facts.isa;
    EXPECT_EQ(row_of(x, int8).kernel, "int8 x int8, " + level(ran)) << facts.name;
    if (facts.isa < kernel::Isa::avx512bf16 && bf16) {
      EXPECT_THAT(row_of(x, fp8).kernel, HasSubstr("in float32"));
      EXPECT_EQ(row_of(x, fp8).reason, "MEZZOTINT_ISA holds AVX-512 BF16 back");
    }
  }
}

TEST(Dispatch, EveryLayoutNamesItsKernel) {
  for (const std::string& label : test::stored_layouts()) {
    SCOPED_TRACE(label);
    const at::Tensor q = from_float(test::weight_for(label), label);
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const DispatchRow row = row_of(some_weight(3, q.size(1), type, 3), q);
      EXPECT_THAT(row.kernel, HasSubstr(" x "));
      EXPECT_EQ(formats::select_format(row.format).label(), row.format);
      if (!kernel::enabled(kernel::Isa::amx)) {
        EXPECT_NE(row.reason, "");
      }
    }
  }
}

/// Collects warnings of libtorch.
struct Warnings : c10::WarningHandler {
  void process(const c10::Warning& warning) override { all.push_back(warning.msg()); }
  std::vector<std::string> all;
};

TEST(Dispatch, ALineForEveryFallbackOnce) {
  Warnings warnings;
  const c10::WarningUtils::WarningHandlerGuard guard(&warnings);
  const at::Tensor q = from_float(some_weight(), "mxfp8");
  for (int i = 0; i < 3; ++i) q.cumsum(0);
  ASSERT_EQ(warnings.all.size(), 1u);
  EXPECT_THAT(warnings.all[0], HasSubstr("aten::cumsum of mxfp8"));
  at::linear(some_weight(2, 512, at::kBFloat16, 3), q);
  EXPECT_EQ(warnings.all.size(), 1u) << "kernels are told with MEZZOTINT_LOG=dispatch only";
}

/// Run as a process of its own with the variable set.
TEST(Dispatch, LogsEveryOperationOnceIfAsked) {
  const char* asked = std::getenv("MEZZOTINT_LOG");
  if (asked == nullptr) {
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    const std::string command =
        "MEZZOTINT_LOG=dispatch '" + self + "' --gtest_brief=1 --gtest_filter=Dispatch.LogsEveryOperationOnceIfAsked";
    ASSERT_EQ(std::system(command.c_str()), 0);
    return;
  }
  Warnings warnings;
  const c10::WarningUtils::WarningHandlerGuard guard(&warnings);
  const at::Tensor x = some_weight(2, 512, at::kBFloat16, 3);
  const at::Tensor q = test::with_options(from_float(some_weight(), "int8_row"), {.name = "proj"});
  for (int i = 0; i < 3; ++i) at::linear(x, q);
  ASSERT_EQ(warnings.all.size(), 1u);
  EXPECT_THAT(warnings.all[0], HasSubstr("aten::linear of proj (int8_tensorwise:scaling=row): int8 x int8, "));
  at::linear(x, test::with_options(q, {.name = "other"}));
  EXPECT_EQ(warnings.all.size(), 2u);
}

}  // namespace
}  // namespace mezzotint::tensor
