#include "mezzotint/formats/bytes.h"

#include <gtest/gtest.h>

#include "mezzotint/formats/driver.h"
#include "mezzotint/formats/format.h"

namespace mezzotint::formats {
namespace {

TEST(Bytes, OwnOrLookAtOthers) {
  const std::vector<std::byte> memory = {std::byte{1}, std::byte{2}, std::byte{3}};
  const Bytes view = Bytes::view(memory), own(memory);
  EXPECT_EQ(view.data(), memory.data());
  EXPECT_NE(own.data(), memory.data());
  EXPECT_EQ(view, own);
  EXPECT_EQ(view.size(), 3u);
  const Bytes again = view;
  EXPECT_EQ(again.data(), memory.data()) << "a copy of a view is a view";
  EXPECT_TRUE(Bytes().empty());
  EXPECT_FALSE(Bytes::view(memory) == Bytes(2));
}

// What the runtime does: decode from memory that somebody else holds.
TEST(Bytes, EveryFormatDecodesFromViews) {
  size_t formats = 0;
  for (const Format* format : all_formats()) {
    if (!format->quantized || !format->writable) continue;
    const auto layout = format->describe({.shape = {256, 512}}, complete_options(*format, {})).layout;
    if (!layout) continue;
    SCOPED_TRACE(format->name);
    std::vector<float> values(256 * 512);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(static_cast<int>(i * 37 % 201) - 100) * 1e-3f;
    const Tile whole{.data = values.data(), .rows = 256, .cols = 512, .row_stride = 512};
    const Quantized q = quantize(*layout, whole, {}, {}, 1);
    Parameters views;
    for (const Bytes& tensor : q.parameters.tensors)
      views.tensors.push_back(Bytes::view({tensor.data(), tensor.size()}));
    EXPECT_EQ(dequantize(q.layout, views, 1), dequantize(q.layout, q.parameters, 1));
    ++formats;
  }
  EXPECT_GE(formats, 8u);
}

}  // namespace
}  // namespace mezzotint::formats
