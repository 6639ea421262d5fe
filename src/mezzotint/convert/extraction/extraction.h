#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/checkpoint/model.h"

/// What distinguishes two models of one architecture, as a LoRA file: TUNED ~ BASE + up * down.
namespace mezzotint::convert {

struct ExtractOptions {
  int64_t rank = 32;            ///< at most; layers with fewer rows or columns have these
  std::optional<double> alpha;  ///< stored; unset = the rank of each layer. Factors are scaled so that it cancels out
  double strength = 1;          ///< what the LoRA does at strength 1: this times the difference
  DType dtype = DType::f16;     ///< f16, bf16 or f32
  uint64_t max_memory = 1ull << 30;  ///< the difference of a layer is kept while it fits half of it
  int threads = 0;                   ///< 0 = all cores; no bit depends on it
  bool overwrite = false;
  std::function<void(uint64_t done, uint64_t total, const std::string& tensor)> progress;
  const std::atomic<bool>* cancel = nullptr;
};

struct ExtractedTensor {
  std::string name;      ///< of the tensor in BASE, a weight without ".weight"
  std::string key;       ///< in the LoRA file; "" where nothing is written
  std::string from, to;  ///< format label or dtype in BASE and TUNED
  Shape shape;
  int64_t rank = 0;    ///< 0 = stored whole (diff, diff_b), or not at all
  double change = 0;   ///< ||D|| / ||W||, D = TUNED - BASE and W the tensor of TUNED
  double energy = 0;   ///< kept of ||D||^2, after rounding to the dtype
  std::string reason;  ///< why nothing is written, or ""
};

struct Extraction {
  std::vector<ExtractedTensor> tensors;  ///< those that differ, largest change first
  uint64_t identical = 0;                ///< tensors that have the same values
  double change = 0, energy = 0;         ///< of all that differ together
  uint64_t written = 0;                  ///< tensors in the file; 0 = no file was written
  uint64_t bytes = 0;                    ///< of the file
  std::vector<std::string> warnings;
};

/// Weights of two and more dimensions ("NAME.weight") become factors: the truncated singular value decomposition of
/// their difference (low_rank.h), down [r, I, kernel...] and up [O, r, 1...], by names that ComfyUI and `mezzotint
/// merge` know (lora_names.h). Everything else (biases, norms, parameters of other names) is stored whole, as diff_b
/// or diff. Quantized weights are decoded on either side; the LoRA is for BASE as it is stored. Tensors pair up by
/// name, with or without the prefix of a diffusion model. The bits depend on files and options, not on threads. Memory:
/// blocks of a layer, its vectors, and the LoRA itself.
///
/// Throws Error "bad-option" (rank, dtype, alpha, strength), "no-common-layers", "cancelled", and those of io::Writer.
Extraction extract_lora(const checkpoint::Model& base, const checkpoint::Model& tuned,
                        const std::filesystem::path& output, const ExtractOptions& options);

}  // namespace mezzotint::convert
