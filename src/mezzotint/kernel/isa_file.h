#pragma once
// Included first by every *.isa.cpp: names the level this object is compiled for.
#include "mezzotint/kernel/isa.h"

namespace mezzotint::kernel {
namespace {
constexpr Isa kIsa = Isa::MEZZOTINT_ISA;
}
}  // namespace mezzotint::kernel
