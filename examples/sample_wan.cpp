// Samples a latent with a Wan file of any format: example_sample_wan MODEL.safetensors INPUTS.safetensors
// OUT.safetensors
#include <c10/core/InferenceMode.h>

#include "mezzotint/models/wan/load.h"
#include "mezzotint/models/wan/sampler.h"
#include "mezzotint/tensor/files.h"

int main(int argc, char** argv) {
  using namespace mezzotint;
  if (argc != 4) return 2;
  const c10::InferenceMode guard;
  const auto model = models::wan::load(argv[1]);  // layers stay as they are stored, what is not quantized becomes bf16
  const auto inputs = tensor::read_tensors(argv[2]);
  const auto input = [&](const char* name) { return inputs.at(name).to(at::kBFloat16); };
  const at::Tensor latent =
      models::wan::sample(*model, input("x"), input("context"), input("context_null"), {.steps = 4, .guidance = 5});
  tensor::write_tensors(argv[3], {{"latent", latent}}, true);
}
