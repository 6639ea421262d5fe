#pragma once
#include "mezzotint/kernel/isa.h"

namespace mezzotint::kernel {

/// The level that this object file was really compiled for, read from the compiler's own feature macros.
template <Isa I>
Isa probe();

}  // namespace mezzotint::kernel
