#include "convert/conversion.h"
#include "mezzotint/convert/plan.h"

// ComfyUI cannot add a bias to a product that is padded in N: such layers are kept, or go to the fallback.
namespace mezzotint::convert {
namespace {

using PlanningBias = Conversion;

TEST_F(PlanningBias, PaddedRowsWithABiasAreRefused) {
  auto rng = test::test_rng();
  const test::RawFile file = small_model(rng);  // blocks.0.q is [48, 64] with a bias
  const Plan refused = plan(file, {.to = "mxfp8"});
  EXPECT_NE(row(refused, "blocks.0.q.weight").reason.find("has a bias"), std::string::npos);
  EXPECT_TRUE(row(refused, "blocks.0.q.weight").action == Action::copy);
  EXPECT_TRUE(row(refused, "blocks.0.up").action == Action::encode);

  test::RawFile without;
  for (const auto& entry : file.tensors)
    if (!entry.first.ends_with("bias")) without.tensors.push_back(entry);
  EXPECT_TRUE(row(plan(without, {.to = "mxfp8"}), "blocks.0.q").action == Action::encode);
}

}  // namespace
}  // namespace mezzotint::convert
