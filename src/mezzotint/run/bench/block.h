#pragma once
#include "mezzotint/run/bench/setup.h"

namespace mezzotint::run::bench {

/// One block of the transformer at full width with random weights: bfloat16 against every format, two by two in turn
/// (weights of all formats at once would not fit), on `tokens` tokens and 512 of text. Only the linear layers are
/// quantized. Errors are those of what the block adds to its input.
Table measure_block(const Setup& setup, const Setup::Model& model, int64_t tokens);

/// Milliseconds of what a step computes outside its blocks (embeddings and head, in bfloat16), best of some.
double time_outside_blocks(const Setup& setup, const Setup::Model& model, int64_t tokens);

}  // namespace mezzotint::run::bench
