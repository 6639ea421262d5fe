#include "mezzotint/kernel/isa_probe.h"

#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {

template <>
Isa probe<kIsa>() {
#if defined(__AVX512F__)
  return Isa::avx512;
#elif defined(__AVX2__)
  return Isa::avx2;
#else
  return Isa::scalar;
#endif
}

}  // namespace mezzotint::kernel
