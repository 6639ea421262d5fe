#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "formats/variants.h"
#include "mezzotint/base/error.h"

namespace mezzotint::formats {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text) {
  try {
    select_format(text);
  } catch (const Error& error) {
    return std::string(error.name()) + ": " + error.what();
  }
  return "no error";
}

TEST(FormatTable, NamesAndAliasesAreUnique) {
  std::set<std::string_view> names;
  for (const Format* format : all_formats()) {
    EXPECT_TRUE(names.insert(format->name).second) << format->name;
    for (const Alias& alias : format->aliases) EXPECT_TRUE(names.insert(alias.name).second) << alias.name;
  }
  EXPECT_GE(all_formats().size(), 7u);
}

TEST(FormatTable, LabelsSelectTheSameAgain) {
  for (const Format* format : all_formats()) {
    EXPECT_EQ(select_format(format->name).label(), format->name);
    for (const Options& options : option_variants(*format)) {
      const Selection selection{format, options};
      const Selection again = select_format(selection.label());
      EXPECT_EQ(again.format, format);
      EXPECT_EQ(again.options, options);
    }
    for (const Alias& alias : format->aliases) EXPECT_EQ(select_format(alias.name).format, format);
  }
}

TEST(FormatTable, AliasesSetOptionsAndTextOverridesThem) {
  EXPECT_EQ(select_format("fp8").label(), "float8_e4m3fn");
  EXPECT_EQ(select_format("int8").label(), "int8_tensorwise:scaling=row");
  EXPECT_EQ(select_format("int8:scaling=tensor").label(), "int8_tensorwise");
  EXPECT_EQ(select_format("int8_blockwise:block_size=64").options.integer("block_size"), 64);
}

TEST(FormatTable, ErrorsNameWhatExists) {
  EXPECT_THAT(error_of("float8_e4m3"), HasSubstr("Did you mean 'float8_e4m3fn'?"));
  EXPECT_THAT(error_of("float8_e4m3"), HasSubstr("unknown-format"));
  EXPECT_THAT(error_of("int8_rwo"), HasSubstr("'int8_row'"));
  EXPECT_THAT(error_of("zzzzzzzzz"), HasSubstr("int8_blockwise"));
  EXPECT_THAT(error_of("zzzzzzzzz"), testing::Not(HasSubstr("Did you mean")));
  EXPECT_THAT(error_of("fp8:block_size=64"), HasSubstr("no option"));
  EXPECT_THAT(error_of("int8_blockwise:blocksize=64"), HasSubstr("'block_size'"));
  for (const char* bad : {"0", "-1", "64x", "064", "", "1048577", "99999999999999999999"})
    EXPECT_THAT(error_of("int8_blockwise:block_size=" + std::string(bad)), HasSubstr("bad-option")) << bad;
  EXPECT_THAT(error_of("int8_tensorwise:scaling=rows"), HasSubstr("tensor|row"));
  EXPECT_THAT(error_of("int8_tensorwise:scaling"), HasSubstr("name=value"));
  EXPECT_THAT(error_of("int8_tensorwise:scaling=row,"), HasSubstr("bad-option"));
  EXPECT_THAT(error_of("int8_tensorwise:scaling=row,scaling=row"), HasSubstr("twice"));
}

TEST(FormatTable, OptionsGoToTextAndBack) {
  const Options options = parse_options("scaling=row,block_size=64");
  EXPECT_EQ(options.to_text(), "block_size=64,scaling=row");
  EXPECT_EQ(parse_options(options.to_text()), options);
  EXPECT_EQ(parse_options(""), Options{});
}

/// Shapes a parameter of this shape might be stored with instead.
std::vector<Shape> other_shapes(const Shape& weight, const Shape& shape) {
  const int64_t rows = weight[weight.size() - 2], cols = weight.back();
  std::vector<Shape> shapes = {shape, {}, {1}, {1, 1}, {rows}, {rows, 1}, {rows, 1, 1}, {cols}, {rows, cols}};
  for (const int64_t b : {2, 7, 16, 64, 128})
    if (cols % b == 0) {
      if (rows % b == 0) shapes.push_back({rows / b, cols / b});
      shapes.push_back({rows, cols / b});
      shapes.push_back({rows, cols / b, 1});
    }
  return shapes;
}

// Every layer of every format, under every label and with every other shape and dtype of its parameters: whoever is
// best at it is alone.
TEST(FormatTable, NoLayerIsClaimedTwice) {
  std::vector<std::string> labels = {"",      "int8_axiswise", "float8_e4m3fn_rowwise", "float8_e4m3fn_blockwise",
                                     "nvfp4", "convrot_w4a4",  "no_such_format"};
  for (const Format* format : all_formats()) labels.emplace_back(format->name);
  size_t layers = 0, claimed = 0;
  for (const Format* writer : all_formats())
    for (const Layout& layout : layouts(*writer))
      for (const std::string& label : labels) {
        nlohmann::json marker = marker_of(layout);
        if (label.empty()) {
          marker = nullptr;
        } else {
          if (marker.is_null()) marker = nlohmann::json::object();
          marker["format"] = label;
        }
        StoredLayer layer = stored_layer(layout, marker);
        for (const DType weight : {layout.tensors[0].dtype, DType::u8, DType::f8_e4m3, DType::f8_e5m2, DType::bf16})
          for (const Shape& shape : layout.tensors.size() > 1 ? other_shapes(layout.shape, layout.tensors[1].shape)
                                                              : std::vector<Shape>{Shape{}})
            for (const DType scale : {DType::f32, DType::bf16, DType::u8}) {
              layer.tensors[0].dtype = weight;
              if (layer.tensors.size() > 1) {
                layer.tensors[1].dtype = scale;
                layer.tensors[1].shape = shape;
              }
              ++layers;
              Fit best = Fit::none;
              std::vector<std::string_view> claims;
              for (const Format* reader : all_formats()) {
                const Recognition recognition = reader->recognise(layer);
                if (recognition.fit == Fit::none || recognition.fit < best) continue;
                if (recognition.fit > best) claims.clear();
                best = recognition.fit;
                claims.push_back(reader->name);
                if (best == Fit::broken || best == Fit::mislabelled) {
                  EXPECT_FALSE(recognition.problems.empty()) << tell(layout) << " as " << label << ": " << reader->name;
                }
              }
              claimed += !claims.empty();
              ASSERT_LE(claims.size(), 1u) << tell(layout) << " labelled '" << label << "', weight " << name(weight)
                                           << ", scale " << name(scale) << " " << to_string(shape) << ": "
                                           << testing::PrintToString(claims) << " at fit " << static_cast<int>(best);
            }
      }
  EXPECT_GT(claimed, layers / 20) << "the test saw almost nothing that anyone claims";
}

}  // namespace
}  // namespace mezzotint::formats
