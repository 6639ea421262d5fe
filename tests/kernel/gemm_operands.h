#pragma once
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernel/matrix.h"
#include "mezzotint/kernel/gemm/operand.h"

/// Coded operands of matrix products and what they mean in double precision; shares no decoder with src/ but those of
/// bf16 and f16, which tests/base checks exhaustively.
namespace mezzotint::kernel::test {

using mezzotint::test::FloatSpec;

struct OperandKind {
  std::string name;
  ElementCode code;
  ScaleCode scale = ScaleCode::none;
  int64_t block_rows = 1, block_cols = 0;
  bool blocked = false;
};

/// A code's value; `bits_of_code` holds it in its lowest bits.
inline double code_value(ElementCode code, uint32_t bits_of_code) {
  switch (code) {
    case ElementCode::f32:
      return float_of(bits_of_code);
    case ElementCode::bf16:
      return Bf16::decode(bits_of_code);
    case ElementCode::f16:
      return Fp16::decode(bits_of_code);
    case ElementCode::e4m3:
      return FloatSpec{4, 3, false, true}.value(bits_of_code);
    case ElementCode::e5m2:
      return FloatSpec{5, 2, true, true}.value(bits_of_code);
    case ElementCode::int8:
      return bits_of_code < 128 ? bits_of_code : static_cast<double>(bits_of_code) - 256;
    case ElementCode::int4:
      return bits_of_code < 8 ? bits_of_code : static_cast<double>(bits_of_code) - 16;
    case ElementCode::e2m1:
      return FloatSpec{2, 1, false, false}.value(bits_of_code);
  }
  return 0;
}

/// How codes are drawn: any finite code, or also NaN and inf where the type has them.
enum class Draw { finite, specials };

class CodedMatrix {
 public:
  CodedMatrix(const OperandKind& kind, int64_t rows, int64_t cols, std::mt19937_64& rng, Draw draw = Draw::finite)
      : kind_(kind), rows_(rows), cols_(cols), values_(static_cast<size_t>(rows * cols)) {
    const int width = bits(kind.code);
    stride_ = (cols * width + 7) / 8 + 3;  // a gap, and rows at odd addresses
    bytes_.assign(static_cast<size_t>(rows * stride_ + 1), 0xFF);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) set(r, c, draw_code(rng, draw, r * cols + c));
    if (kind.scale != ScaleCode::none) draw_scales(rng);
  }

  Operand operand() const {
    Operand m{bytes_.data() + 1, kind_.code, rows_, cols_, stride_, {}};
    if (kind_.scale != ScaleCode::none)
      m.scales = {kind_.scale, scales_.data(), kind_.block_rows, kind_.block_cols, scale_stride_, kind_.blocked};
    return m;
  }
  double at(int64_t r, int64_t c) const { return values_[static_cast<size_t>(r * cols_ + c)]; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  /// Changes what one element is said to mean, not its code.
  void misread(int64_t r, int64_t c, double value) { values_[static_cast<size_t>(r * cols_ + c)] = value; }

 private:
  uint32_t draw_code(std::mt19937_64& rng, Draw draw, int64_t index) {
    const int width = bits(kind_.code);
    if (width >= 16) {
      float x = std::normal_distribution<float>(0, 1)(rng);
      if (draw == Draw::specials && index % 97 == 5) x = index % 2 == 0 ? INFINITY : NAN;
      if (kind_.code == ElementCode::f32) return std::bit_cast<uint32_t>(x);
      return kind_.code == ElementCode::bf16 ? Bf16::encode(x) : Fp16::encode(x);
    }
    for (;;) {
      const auto code = static_cast<uint32_t>(rng() & ((1u << width) - 1));
      if (std::isfinite(code_value(kind_.code, code)) || (draw == Draw::specials && rng() % 3 == 0)) return code;
    }
  }

  void set(int64_t r, int64_t c, uint32_t code) {
    const int width = bits(kind_.code);
    uint8_t* row = bytes_.data() + 1 + r * stride_;
    if (width == 4) {
      const bool high = (c % 2 == 0) == (kind_.code == ElementCode::e2m1);
      uint8_t& byte = row[c / 2];
      byte = static_cast<uint8_t>(high ? (byte & 0x0F) | code << 4 : (byte & 0xF0) | code);
    } else {
      std::memcpy(row + c * width / 8, &code, static_cast<size_t>(width / 8));
    }
    values_[static_cast<size_t>(r * cols_ + c)] = code_value(kind_.code, code);
  }

  void draw_scales(std::mt19937_64& rng) {
    const int64_t down = (rows_ + kind_.block_rows - 1) / kind_.block_rows;
    const int64_t across = (cols_ + kind_.block_cols - 1) / kind_.block_cols;
    std::vector<uint8_t> codes(static_cast<size_t>(down * across));
    std::vector<float> floats(codes.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = kind_.scale == ScaleCode::e4m3 ? static_cast<uint8_t>(rng() % 0x70)
                                                : static_cast<uint8_t>(rng() % 9 == 0 ? 0 : 115 + rng() % 20);
      floats[i] = std::uniform_real_distribution<float>(0.01f, 2)(rng);
    }
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) {
        const auto i = static_cast<size_t>(r / kind_.block_rows * across + c / kind_.block_cols);
        double scale = floats[i];
        if (kind_.scale == ScaleCode::e4m3) scale = FloatSpec{4, 3, false, true}.value(codes[i]);
        if (kind_.scale == ScaleCode::e8m0) scale = codes[i] == 0 ? 0 : std::ldexp(1.0, codes[i] - 127);
        values_[static_cast<size_t>(r * cols_ + c)] *= scale;
      }
    scale_stride_ = kind_.blocked ? (across + 3) / 4 * 4 : across + 1;
    if (kind_.blocked) {  // in the order of comfy-kitchen's to_blocked: view, permute, read
      for (int64_t i = 0; i < (down + 127) / 128; ++i)
        for (int64_t j = 0; j < scale_stride_ / 4; ++j)
          for (int64_t row = 0; row < 32; ++row)
            for (int64_t part = 0; part < 4; ++part)
              for (int64_t col = 0; col < 4; ++col) {
                const int64_t r = i * 128 + part * 32 + row, c = j * 4 + col;
                scales_.push_back(r < down && c < across ? codes[static_cast<size_t>(r * across + c)] : 0x7F);
              }
      return;
    }
    const size_t width = kind_.scale == ScaleCode::f32 ? 4 : 1;
    scales_.assign(static_cast<size_t>(down * scale_stride_) * width, 0x7F);
    for (int64_t r = 0; across > 0 && r < down; ++r)
      std::memcpy(scales_.data() + static_cast<size_t>(r * scale_stride_) * width,
                  width == 4 ? static_cast<const void*>(&floats[static_cast<size_t>(r * across)])
                             : &codes[static_cast<size_t>(r * across)],
                  static_cast<size_t>(across) * width);
  }

  OperandKind kind_;
  int64_t rows_, cols_, stride_ = 0, scale_stride_ = 0;
  std::vector<uint8_t> bytes_, scales_;
  std::vector<double> values_;
};

}  // namespace mezzotint::kernel::test
