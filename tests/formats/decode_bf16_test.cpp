#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "formats/variants.h"
#include "mezzotint/kernel/cast.h"
#include "mezzotint/kernel/isa.h"
#include "support/seed.h"

// Decoding straight to bf16 against decoding to float32 and rounding that, for every format that can do the former.
namespace mezzotint::formats {
namespace {

constexpr uint16_t kUntouched = 0xA5A5;

/// A rectangle of the weight, its rows `stride` values apart in the results.
struct Part {
  RowRange rows;
  int64_t col0 = 0, cols = 0, stride = 0;
};

std::vector<uint16_t> fused(const Layout& layout, const Parameters& parameters, const Part& part) {
  std::vector<uint16_t> out(static_cast<size_t>(part.rows.rows * part.stride), kUntouched);
  layout.format->decode_bf16(layout, parameters, part.rows.row0, part.rows.rows, part.col0, part.cols,
                             parameters.tensors[0].data() + layout.stored_row(part.rows.row0) * layout.row_bytes,
                             out.data(), part.stride);
  return out;
}

std::vector<uint16_t> in_two_steps(const Layout& layout, const Parameters& parameters, const Part& part) {
  std::vector<float> wide(static_cast<size_t>(part.rows.rows * part.stride));
  std::vector<uint16_t> out(wide.size(), kUntouched);
  layout.format->decode(layout, parameters, part.rows.row0, part.rows.rows, part.col0, part.cols,
                        parameters.tensors[0].data() + layout.stored_row(part.rows.row0) * layout.row_bytes,
                        wide.data(), part.stride);
  kernel::cast({wide.data(), DType::f32, part.rows.rows, part.cols, part.stride}, DType::bf16, out.data(), part.stride);
  return out;
}

/// Any bytes as codes and parameters; float32 parameters are ordinary, or such that products overflow, underflow and
/// are NaN. Never NaN themselves: which NaN the product of two is, processors and compilers choose.
void scramble(Parameters& parameters, const Layout& layout, bool special, std::mt19937_64& rng) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kSpecial[] = {0x1p-130f, 0x1p120f, 0, kInf, -kInf, -0x1.8p-4f, 0x1p-149f, 0x1.fffffep127f};
  for (size_t t = 0; t < layout.tensors.size(); ++t) {
    Bytes& bytes = parameters.tensors[t];
    if (layout.tensors[t].dtype != DType::f32) {
      for (std::byte& b : bytes) b = static_cast<std::byte>(rng());
      continue;
    }
    std::vector<float> values(bytes.size() / 4);
    const size_t first = rng();
    for (size_t i = 0; i < values.size(); ++i)
      values[i] =
          special ? kSpecial[(first + i) % std::size(kSpecial)] : std::uniform_real_distribution<float>(1e-4f, 3)(rng);
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
}

class DecodeBf16 : public testing::TestWithParam<const Format*> {};

TEST_P(DecodeBf16, EqualsRoundedFloat32) {
  auto rng = test::test_rng();
  bool differs = false;
  for (const Layout& layout : layouts(*GetParam())) {
    SCOPED_TRACE(tell(layout));
    if (layout.transformed) continue;
    Parameters parameters = new_parameters(layout);
    parameters.tensors[0].resize(codes_bytes(layout));
    for (int trial = 0; trial < 10; ++trial) {
      scramble(parameters, layout, trial > 1, rng);
      for (const RowRange& range : row_tiles(layout, trial % 2 == 0 ? 1 : layout.rows)) {
        const int64_t skip = trial % 3 == 0 ? 0 : static_cast<int64_t>(rng()) & (layout.cols - 1 < 40 ? 0 : 31);
        const Part part{range, skip, layout.cols - skip - (layout.cols > 60 ? trial % 4 : 0), layout.cols + trial % 5};
        const std::vector<uint16_t> want = in_two_steps(layout, parameters, part);
        for (const kernel::Isa isa : kernel::base_isas()) {
          const kernel::ScopedIsaCap cap(isa);
          ASSERT_EQ(fused(layout, parameters, part), want)
              << kernel::name(isa) << ", trial " << trial << ", row " << range.row0 << ", column " << skip;
        }
        if (trial == 0) {
          parameters.tensors[0][0] ^= std::byte{1};
          differs |= fused(layout, parameters, part) != want;
          parameters.tensors[0][0] ^= std::byte{1};
        }
      }
    }
  }
  EXPECT_TRUE(differs) << "control MISSED";
}

TEST_P(DecodeBf16, IsWhatTheDriverGives) {
  auto rng = test::test_rng();
  for (const Layout& layout : layouts(*GetParam())) {
    SCOPED_TRACE(tell(layout));
    Parameters parameters = new_parameters(layout);
    parameters.tensors[0].resize(codes_bytes(layout));
    scramble(parameters, layout, false, rng);
    const RowRange range = row_tiles(layout, layout.rows).back();
    const std::byte* codes = parameters.tensors[0].data() + layout.stored_row(range.row0) * layout.row_bytes;
    std::vector<float> wide(static_cast<size_t>(range.rows * layout.cols)), scratch;
    std::vector<uint16_t> want(wide.size()), got(wide.size());
    decode_rows(layout, parameters, range.row0, range.rows, codes, wide.data());
    kernel::cast({wide.data(), DType::f32, range.rows, layout.cols, layout.cols}, DType::bf16, want.data(),
                 layout.cols);
    decode_rows(layout, parameters, range.row0, range.rows, codes, got.data(), scratch);
    ASSERT_EQ(got, want);
  }
}

std::vector<const Format*> with_it() {
  std::vector<const Format*> found;
  for (const Format* format : all_formats())
    if (format->decode_bf16) found.push_back(format);
  return found;
}

INSTANTIATE_TEST_SUITE_P(Formats, DecodeBf16, testing::ValuesIn(with_it()),
                         [](const auto& row) { return std::string(row.param->name); });

}  // namespace
}  // namespace mezzotint::formats
