#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <thread>

#include "mezzotint/base/error.h"
#include "synth/checkpoint.h"
#include "synth/recipe.h"

namespace {

using namespace mezzotint;

std::optional<DType> dtype_option(const std::string& text) {
  if (text.empty()) return std::nullopt;
  if (text == "bf16") return DType::bf16;
  return text == "fp16" ? DType::f16 : DType::f32;
}

std::string describe(const synth::ShapeFile& shape, double scale, uint64_t seed) {
  char text[64];
  std::snprintf(text, sizeof text, " scale=%g seed=%llu", scale, static_cast<unsigned long long>(seed));
  return shape.name + text;
}

int run(int argc, char** argv) {
  CLI::App app("Write a checkpoint with the names and shapes of a published model and made-up weights.");
  std::string shape_path, out, dtype;
  synth::RecipeOptions recipe;
  synth::WriteOptions write{.threads = std::max(1u, std::thread::hardware_concurrency())};
  uint64_t size = 0;
  int64_t blocks = 0;
  app.add_option("--shape", shape_path, "a file of tools/shapes")->required();
  app.add_option("-o,--output", out, "the .safetensors file to write")->required();
  auto* blocks_option = app.add_option("--blocks", blocks, "blocks of every stack (default: as published)");
  auto* size_option = app.add_option("--size", size, "data to come close to by the number of blocks, e.g. 6GB")
                          ->transform(CLI::AsSizeValue(true))
                          ->excludes(blocks_option);
  app.add_option("--scale", recipe.scale, "factor on the widths, e.g. 0.25")->capture_default_str();
  app.add_option("--dtype", dtype, "of the float tensors (default: as published)")
      ->check(CLI::IsMember({"bf16", "fp16", "fp32"}));
  app.add_option("--prefix", recipe.prefix, "put before every name, e.g. model.diffusion_model.");
  app.add_option("--seed", write.seed, "seed of the values")->capture_default_str();
  app.add_option("--shards", write.shards, "write about so many files and an index")->check(CLI::Range(1, 9999));
  app.add_option("--threads", write.threads, "threads")->check(CLI::Range(1, 1024));
  app.add_flag("--force", write.overwrite, "replace an existing output");
  CLI11_PARSE(app, argc, argv);
  if (*blocks_option) recipe.blocks = blocks;
  if (*size_option) recipe.size = size;
  recipe.dtype = dtype_option(dtype);

  const auto shape = synth::read_shape_file(shape_path);
  const auto specs = synth::expand(shape, recipe);
  write.metadata = {{"format", "pt"}, {"synthetic", describe(shape, recipe.scale, write.seed)}};
  const auto start = std::chrono::steady_clock::now();
  const uint64_t bytes = synth::write_checkpoint(out, specs, write);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s: %zu tensors, %.3f GB in %.1f s (%.0f MB/s)\n", out.c_str(), specs.size(),
              static_cast<double>(bytes) / 1e9, seconds, static_cast<double>(bytes) / 1e6 / seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "mezzotint-synth: %s\n", e.what());
    return 1;
  }
}
