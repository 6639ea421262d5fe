#include "mezzotint/checkpoint/suffixes.h"

#include <gtest/gtest.h>

namespace mezzotint::checkpoint {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

TEST(Suffixes, SplitsAtTheLastDot) {
  EXPECT_EQ(split_name("a.b.weight"), (Pair{"a.b", "weight"}));
  EXPECT_EQ(split_name("weight"), (Pair{"", "weight"}));
  EXPECT_EQ(split_name(".weight"), (Pair{"", "weight"}));
  EXPECT_EQ(split_name("a."), (Pair{"a", ""}));
  EXPECT_EQ(split_name(""), (Pair{"", ""}));
}

TEST(Suffixes, OldSpellings) {
  EXPECT_EQ(canonical_suffix("scale_weight"), "weight_scale");
  EXPECT_EQ(canonical_suffix("scale_input"), "input_scale");
  for (const std::string_view same : {"weight_scale", "input_scale", "weight", "bias", "scale_weights", ""})
    EXPECT_EQ(canonical_suffix(same), same);
}

TEST(Suffixes, OfQuantization) {
  for (const std::string_view yes : {"weight_scale", "input_scale", "pre_quant_scale", "comfy_quant"})
    EXPECT_TRUE(is_quantization_suffix(yes)) << yes;
  // An old spelling has to go through canonical_suffix first; "scale" alone belongs to norms.
  for (const std::string_view no : {"weight", "bias", "scale", "scale_weight", "weight_scales", "gamma", ""})
    EXPECT_FALSE(is_quantization_suffix(no)) << no;
}

}  // namespace
}  // namespace mezzotint::checkpoint
