#pragma once
#include "mezzotint/formats/format.h"

namespace mezzotint::formats::int8_quip {

Recognition recognise(const StoredLayer& layer);

}  // namespace mezzotint::formats::int8_quip
