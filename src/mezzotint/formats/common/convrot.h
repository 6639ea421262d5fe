#pragma once
#include <optional>
#include <string>
#include <vector>

#include "mezzotint/formats/format.h"

/// ConvRot's rotation in front of codes: what formats share whose weights are always stored rotated. The input
/// dimension K is cut into groups, and each is multiplied by the same regular Hadamard matrix (kernel/hadamard.h).
namespace mezzotint::formats::convrot {

inline constexpr std::string_view kGroup = "convrot_groupsize";
/// The marker's key is called like the option.
inline constexpr OptionSpec kGroupOption = {kGroup, OptionSpec::Type::choice, "256", "4|16|64|256|1024|4096",
                                            "columns that are rotated together; must divide K"};

inline int64_t group(const Options& options) {
  return options.integer(kGroup);
}

/// Why K columns cannot be rotated in groups of this size, or "".
std::string refuse(int64_t cols, int64_t group);

/// Format::transform; the inverse is the same map.
void transform(const Layout& layout, float* rows, int64_t count, bool inverse);

/// The importance of rotated columns, or nothing where the choice has none: second moments of x H on the diagonal are
/// those of x averaged over the group, as far as the columns of x are uncorrelated.
std::vector<float> column_weights(const Layout& layout, const ChooseOptions& choose);

/// The group size a marker means (256 where it has none), or nothing where it is no size that exists.
std::optional<int64_t> marker_group(const StoredLayer& layer);

}  // namespace mezzotint::formats::convrot
