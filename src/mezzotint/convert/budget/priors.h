#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// How much more an error in a layer matters than its size says, from the layer's name alone.
namespace mezzotint::convert {

/// What an error costs in a layer whose name matches as a whole (PCRE2; component prefix or not, no ".weight").
struct RolePrior {
  std::string_view pattern;
  double factor;
  std::string_view reason;
};

/// The roles that have one. Layers that write into the residual stream count twice: their error reaches every later
/// layer and no normalisation stands behind it. (Embeddings, modulation, first and last layers are kept by the rules
/// of conversion and never get here.)
std::span<const RolePrior> role_priors();

/// Layers of the first and the last block of every stack count twice as well.
inline constexpr double kEndBlockPrior = 2;

/// "stem.N" for a layer of a stack of blocks (the first number in its name), or the name itself.
std::string_view block_of(std::string_view layer);

/// Product of the priors of every layer. Which blocks are first and last is seen from these names.
std::vector<double> priors_of(std::span<const std::string> layers);

}  // namespace mezzotint::convert
