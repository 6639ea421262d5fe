// The amx level's int8 kernel on emulated tile registers: its source is the one that runs on AMX machines, so packing,
// tails, tile configuration and the order of the float32 part are checked where there is no AMX.
#define MEZZOTINT_ISA scalar
#include "mezzotint/kernel/gemm/int8_amx.h"

#include "kernel/emulated_tiles.h"
#include "kernel/matrix.h"
#include "mezzotint/kernel/gemm/int8_gemm.h"

namespace mezzotint::kernel::test {
namespace {

/// The packing trait in plain C++.
struct PlainColumns {
  struct Int {
    int32_t lane[16];
  };
  using Float = Int;
  static constexpr int kLanes = 16, kGroup = 4, kVectors = 1, kTileRows = 32, kOffset = 0;

  static void store(int32_t* p, const Int& v) { std::memcpy(p, v.lane, sizeof v.lane); }
  static int32_t group(const int8_t* p, int64_t n) {
    int32_t codes = 0;
    std::memcpy(&codes, p, static_cast<size_t>(n));
    return codes;
  }
  static Int load_columns(const int8_t* p) {
    Int v;
    std::memcpy(v.lane, p, sizeof v.lane);
    return v;
  }
  static Int interleave(const int8_t* p, int64_t step) {
    Int v;
    for (int i = 0; i < 16; ++i) {
      const int8_t codes[] = {p[i], p[step + i], p[2 * step + i], p[3 * step + i]};
      v.lane[i] = group(codes, 4);
    }
    return v;
  }
  static void transpose(Int (&v)[16]) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < i; ++j) std::swap(v[i].lane[j], v[j].lane[i]);
  }
};

using Product = AmxProduct<EmulatedTiles, PlainColumns>;

/// y by the amx kernel, its rows in parts of `part_rows`.
void multiply(const Int8Job& job, int64_t part_rows) {
  const Int8Shape shape{Product::kRows, Product::kBlockBytes / Product::kRows, kInt8Block, Product::kDepth, 0};
  const auto round_up = [](int64_t x) { return (x + Product::kRows - 1) / Product::kRows * Product::kRows; };
  const int64_t row_bytes = job.depth_blocks() * shape.row_bytes;
  std::vector<std::byte> packed(static_cast<size_t>(round_up(job.rows) * row_bytes), std::byte{0xEE});
  std::vector<std::byte> scratch(static_cast<size_t>(int8_part_scratch(shape, round_up(part_rows), job.depth)) + 64,
                                 std::byte{0xEE});
  Product::pack_rows(job, 0, job.rows, packed.data());
  for (int64_t row = 0; row < job.rows; row += part_rows)
    for (int64_t col = 0; col < job.cols; col += kInt8Panel) {
      Int8Part part;
      part.row0 = row, part.rows = std::min(part_rows, job.rows - row), part.col0 = col;
      part.packed_rows = packed.data() + row * row_bytes;
      part.scratch = scratch.data();
      Product::panel(job, part);
    }
}

struct Shape {
  int64_t rows, cols, depth;
};

struct Case {
  Shape s;
  bool transposed, scaled;
  Matrix a, b;
  std::vector<float> a_scales, b_scales, row_scale, bias;

  Case(const Shape& shape, bool turned, bool block_scaled, std::mt19937_64& rng)
      : s(shape),
        transposed(turned),
        scaled(block_scaled),
        a(s.rows, s.depth, 1, 3, 1),
        b(turned ? s.depth : s.cols, turned ? s.cols : s.depth, 1, 5, 3) {
    for (Matrix* matrix : {&a, &b})
      for (int64_t r = 0; r < matrix->rows(); ++r)
        for (int64_t c = 0; c < matrix->cols(); ++c) matrix->set<int8_t>(r, c, static_cast<int8_t>(rng()));
    const auto numbers = [&](int64_t count) {
      std::vector<float> list(static_cast<size_t>(count));
      for (float& v : list) v = std::uniform_real_distribution<float>(0.001f, 0.01f)(rng);
      return list;
    };
    a_scales = numbers(s.rows * blocks(s.depth));
    b_scales = numbers(blocks(b.rows()) * blocks(b.cols()));
    row_scale = numbers(s.rows), bias = numbers(s.cols);
  }
  static int64_t blocks(int64_t n) { return (n + 127) / 128; }

  Int8Product product() {
    Int8Product p;
    p.m = s.rows, p.n = transposed ? s.depth : s.cols, p.k = transposed ? s.cols : s.depth;
    p.x = {reinterpret_cast<int8_t*>(a.data()), a.stride(), scaled ? a_scales.data() : nullptr, blocks(s.depth)};
    p.w = {reinterpret_cast<int8_t*>(b.data()), b.stride(), scaled ? b_scales.data() : nullptr, blocks(b.cols())};
    p.epilogue.row_scale = row_scale.data(), p.epilogue.bias = bias.data();
    return p;
  }
  Int8Job job(Matrix& y) {
    const Int8Product p = product();
    Int8Job job;
    job.rows = s.rows, job.cols = s.cols, job.depth = s.depth, job.a = p.x, job.epilogue = p.epilogue;
    job.b = p.w.codes, job.b_scales = p.w.scales;
    job.b_col = transposed ? 1 : b.stride(), job.b_depth = transposed ? b.stride() : 1;
    job.b_scale_col = transposed ? 1 : blocks(b.cols()), job.b_scale_depth = transposed ? blocks(b.cols()) : 1;
    job.y = {y.data(), DType::f32, y.stride()};
    return job;
  }
  /// By the definition: the scalar level.
  Matrix expected() {
    const ScopedIsaCap cap(Isa::scalar);
    Matrix y(s.rows, s.cols, 4, 3, 1);
    const Int8Product p = product();
    std::vector<std::byte> scratch(int8_gemm_scratch_bytes(p.m, p.n, p.k, 1));
    const Output out{y.data(), DType::f32, y.stride()};
    transposed ? int8_transposed(p, out, scratch) : int8_forward(p, out, scratch);
    return y;
  }
};

TEST(GemmInt8Amx, IsTheDefinitionOnEmulatedTiles) {
  auto rng = test_rng();
  for (const Shape& s : {Shape{1, 1, 1},
                         {5, 3, 64},
                         {32, 32, 128},
                         {33, 130, 257},
                         {16, 17, 65},
                         {70, 40, 300},
                         {64, 256, 1030},
                         {31, 33, 129},
                         {2, 5, 65700}})
    for (const bool transposed : {false, true})
      for (const bool scaled : {false, true}) {
        SCOPED_TRACE(testing::Message() << s.rows << "x" << s.cols << "x" << s.depth << (scaled ? " block-wise" : "")
                                        << (transposed ? " transposed" : ""));
        Case c(s, transposed, scaled, rng);
        Matrix expected = c.expected();
        for (const int64_t part_rows : {32, 64, 96}) {
          Matrix y(s.rows, s.cols, 4, 3, 1);
          multiply(c.job(y), part_rows);
          EXPECT_TRUE(y.elements() == expected.elements());
          EXPECT_TRUE(y.neighbours_untouched());
        }
        *c.b.at(c.b.rows() - 1, c.b.cols() - 1) ^= 1;
        Matrix other(s.rows, s.cols, 4, 3, 1);
        multiply(c.job(other), 64);
        EXPECT_FALSE(other.elements() == expected.elements()) << "a changed code is not seen";
      }
}

TEST(EmulatedTilesDeath, UnconfiguredTilesFault) {
  EXPECT_DEATH(
      {
        EmulatedTiles tiles;
        tiles.zero<0>();
      },
      "not configured");
}

}  // namespace
}  // namespace mezzotint::kernel::test
