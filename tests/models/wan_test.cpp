#include "mezzotint/models/wan/wan.h"

#include <gmock/gmock.h>

#include "mezzotint/base/error.h"
#include "mezzotint/models/wan/sampler.h"
#include "mezzotint/nn/load.h"
#include "nn/wan_file.h"

// Properties; the numbers are compared with ComfyUI's model in tests/peers/test_wan.py.
namespace mezzotint::models::wan {
namespace {

class Wan : public testing::Test {
 protected:
  Wan() {
    test::write_wan(folder_ / "model.safetensors");
    file_ = checkpoint::Model::open(folder_ / "model.safetensors");
    model_ = std::make_shared<Transformer>(test::small_wan());
    nn::load(*model_, *file_, {.compute = at::kFloat});
  }

  test::TemporaryFolder folder_;
  std::optional<checkpoint::Model> file_;
  std::shared_ptr<Transformer> model_;
};

TEST_F(Wan, SizesAreReadOffTheFile) {
  const Config got = config_from(file_->source().tensors(), "", 2), wanted = test::small_wan();
  EXPECT_EQ(got.width, wanted.width);
  EXPECT_EQ(got.feed_forward, wanted.feed_forward);
  EXPECT_EQ(got.layers, wanted.layers);
  EXPECT_EQ(got.heads, 2);
  EXPECT_EQ(got.channels_in, 16);
  EXPECT_EQ(got.channels_out, 16);
  EXPECT_EQ(got.text_width, 96);
  EXPECT_EQ(got.frequencies, 64);
  EXPECT_TRUE(got.cross_norm);
  EXPECT_EQ(config_from(file_->source().tensors()).heads, 2) << "of 128 channels";
  EXPECT_THROW(config_from({}), Error);
}

TEST_F(Wan, SamplesOfABatchDoNotSeeEachOther) {
  const at::NoGradGuard guard;
  const at::Tensor x = torch::randn({2, 16, 2, 4, 6}), time = torch::tensor({900.0f, 10.0f}),
                   text = torch::randn({2, 5, 96});
  const at::Tensor both = model_->forward(x, time, text);
  for (int64_t i = 0; i < 2; ++i)
    EXPECT_TRUE(model_->forward(x.slice(0, i, i + 1), time.slice(0, i, i + 1), text.slice(0, i, i + 1))
                    .allclose(both.slice(0, i, i + 1), 1e-4, 1e-4));
  EXPECT_FALSE(both[0].allclose(model_->forward(x, time.flip(0), text)[0], 1e-2, 1e-2)) << "the time counts";
  EXPECT_FALSE(both[0].allclose(model_->forward(x, time, text.flip(0))[0], 1e-2, 1e-2)) << "the text counts";
}

TEST_F(Wan, OddSizesComeBack) {
  const at::NoGradGuard guard;
  const at::Tensor y =
      model_->forward(torch::randn({1, 16, 2, 5, 7}), torch::tensor({500.0f}), torch::randn({1, 5, 96}));
  EXPECT_EQ(y.sizes(), at::IntArrayRef({1, 16, 2, 5, 7}));
  EXPECT_THROW(model_->forward(torch::randn({1, 15, 2, 4, 4}), torch::tensor({500.0f}), torch::randn({1, 5, 96})),
               c10::Error);
}

TEST(WanRotation, TurnsByPlace) {
  const at::Tensor m = rotary_matrices(128, 2, 3, 4);
  EXPECT_EQ(m.sizes(), at::IntArrayRef({1, 24, 1, 64, 2, 2}));
  EXPECT_TRUE(m[0][0][0].equal(at::eye(2).expand({64, 2, 2}))) << "the first token is not turned";
  EXPECT_TRUE(at::matmul(m, m.transpose(-2, -1)).allclose(at::eye(2).expand_as(m), 1e-5, 1e-5)) << "rotations";
  // 44 channels of frames, 42 of rows, 42 of columns; token (1, 2, 3) is the last.
  const at::Tensor last = m[0][23][0];
  EXPECT_NEAR(last[0][0][0].item<float>(), std::cos(1.0), 1e-6);
  EXPECT_NEAR(last[22][0][0].item<float>(), std::cos(2.0), 1e-6);
  EXPECT_NEAR(last[43][1][0].item<float>(), std::sin(3.0), 1e-6);
}

TEST_F(Wan, EulerStepsFollowTheFlow) {
  const at::NoGradGuard guard;
  const at::Tensor noise = torch::randn({1, 16, 1, 4, 4}), text = torch::randn({1, 5, 96}),
                   null = torch::randn({1, 5, 96});
  EXPECT_THAT(noise_levels({.steps = 2, .shift = 3}), testing::ElementsAre(1, testing::DoubleEq(0.75), 0));
  const auto v = [&](const at::Tensor& x, float time, const at::Tensor& c) {
    return model_->forward(x, torch::tensor({time}), c);
  };
  at::Tensor x = noise - 0.25 * v(noise, 1000, text);
  x = x - 0.75 * v(x, 750, text);
  EXPECT_TRUE(sample(*model_, noise, text, {}, {.steps = 2, .guidance = 1, .shift = 3}).allclose(x, 1e-4, 1e-5));
  const at::Tensor guided = noise - (v(noise, 1000, null) + 4 * (v(noise, 1000, text) - v(noise, 1000, null)));
  EXPECT_TRUE(sample(*model_, noise, text, null, {.steps = 1, .guidance = 4}).allclose(guided, 1e-4, 1e-5));
  EXPECT_THROW(sample(*model_, noise, text, {}, {.steps = 1}), c10::Error);
}

}  // namespace
}  // namespace mezzotint::models::wan
