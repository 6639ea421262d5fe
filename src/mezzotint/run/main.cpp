#include <c10/core/InferenceMode.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "mezzotint/base/error.h"
#include "mezzotint/convert/lora_argument.h"
#include "mezzotint/run/wan.h"

int main(int argc, char** argv) {
  CLI::App app("Runs quantized models.", "mezzotint-run");
  app.require_subcommand(1);
  mezzotint::run::WanArguments wan;
  CLI::App& command = *app.add_subcommand("wan", "Wan 2.1 and 2.2, text to video: one forward, or a sampled latent");
  command.add_option("MODEL", wan.model, "Checkpoint, quantized or not")->required();
  command
      .add_option("INPUTS", wan.inputs,
                  "Tensors x [B, C, F, H, W], context [B, L, D], for a forward timestep [B], for guidance context_null")
      ->required();
  command.add_option("-o,--output", wan.output, "File for the tensor out")->required();
  command.add_option("--dtype", wan.dtype, "Compute in fp32 or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  command.add_option("--steps", wan.steps, "Sample by so many steps; x is the noise")->check(CLI::Range(1, 1000));
  command.add_option("--cfg", wan.sampling.guidance, "Guidance");
  command.add_option("--shift", wan.sampling.shift, "Of the noise levels")->check(CLI::PositiveNumber);
  command.add_option("--to", wan.to, "Quantize float weights to this format while they are read");
  std::vector<std::string> loras;
  command
      .add_option("--lora", loras,
                  "Adapter to compute beside the layers, whose weights stay as they are: LoRA, LoHa, LoKr, OFT, BOFT, "
                  "GLoRA, DoRA. Repeatable, each with its full strength; 1 where none is given")
      ->type_size(1)
      ->expected(1, 1 << 20)
      ->allow_extra_args(false)
      ->type_name("FILE[:STRENGTH]");
  command.add_option("--record", wan.calibration,
                     "Also write a calibration file of this run, for `mezzotint convert --calibration`");
  command.add_option("--heads", wan.heads, "Heads of attention, where they are not 128 wide");
  command.add_flag(
      "--comfyui-inputs", wan.comfyui_inputs,
      "Round inputs of 8-bit float layers that have no input_scale as ComfyUI does: clamped, with scale 1");
  command.add_flag("-f,--force", wan.overwrite, "Overwrite an existing output");
  command.add_flag("-q,--quiet", wan.quiet, "No summary");
  CLI11_PARSE(app, argc, argv);
  try {
    const c10::InferenceMode guard;
    for (const std::string& text : loras) wan.loras.push_back(mezzotint::convert::parse_lora(text));
    mezzotint::run::wan(wan);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mezzotint-run: error: %s\n", error.what());
    return 1;
  }
  return 0;
}
