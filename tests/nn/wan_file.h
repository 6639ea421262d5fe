#pragma once
#include <torch/types.h>

#include <filesystem>
#include <random>
#include <string>

#include "mezzotint/checkpoint/model.h"
#include "mezzotint/convert/execute.h"
#include "mezzotint/models/wan/wan.h"
#include "mezzotint/tensor/stored_weight.h"
#include "support/checkpoint_file.h"

namespace mezzotint::test {

/// Two blocks of 256 channels: every linear layer of a block takes every format.
inline models::wan::Config small_wan() {
  return {.width = 256,
          .feed_forward = 512,
          .layers = 2,
          .heads = 2,
          .channels_in = 16,
          .channels_out = 16,
          .text_width = 96,
          .frequencies = 64};
}

/// Random weights under the names of the architecture.
inline void write_wan(const std::filesystem::path& path, const std::string& prefix = "") {
  std::mt19937_64 rng(1);
  const models::wan::Transformer model(small_wan());
  RawFile file;
  for (const auto& parameter : model.named_parameters()) {
    const Shape shape = tensor::shape_of(parameter.value());
    const bool norm = parameter.key().find("norm") != std::string::npos;
    std::normal_distribution<float> normal(norm ? 1.0f : 0.0f,
                                           shape.size() == 2 ? 1 / std::sqrt(static_cast<float>(shape[1])) : 0.3f);
    std::vector<float> values(element_count(shape).value());
    for (float& value : values) value = normal(rng);
    file.tensors.emplace_back(prefix + parameter.key(), f32_tensor(shape, values));
  }
  write_raw(path, file);
}

inline void convert_file(const std::filesystem::path& from, const std::filesystem::path& to,
                         const std::string& format) {
  const auto model = checkpoint::Model::open(from);
  convert::ConvertOptions options;
  options.to = format;
  convert::execute(convert::make_plan(model, to, options, 2), model, {});
}

struct WanInputs {
  at::Tensor x = torch::randn({1, 16, 3, 6, 8}, at::make_generator<at::CPUGeneratorImpl>(2)),
             timestep = torch::tensor({500.0f}),
             text = torch::randn({1, 9, 96}, at::make_generator<at::CPUGeneratorImpl>(3));
};

}  // namespace mezzotint::test
