#include "mezzotint/base/rounding.h"

namespace mezzotint {
namespace {

// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
uint64_t mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

}  // namespace

Rounding Rounding::stochastic(uint64_t seed, std::string_view tensor_name) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (const char c : tensor_name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return {Mode::stochastic, mix(mix(seed) ^ hash)};
}

}  // namespace mezzotint
