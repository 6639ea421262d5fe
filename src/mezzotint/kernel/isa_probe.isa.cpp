#include "mezzotint/kernel/isa_probe.h"

#include "mezzotint/kernel/isa_file.h"

namespace mezzotint::kernel {

template <>
Isa probe<kIsa>() {
#if defined(__AMX_TILE__)
  return Isa::amx;
#elif defined(__AVX512BF16__)
  return Isa::avx512bf16;
#elif defined(__AVX512VNNI__)
  return Isa::avx512vnni;
#elif defined(__AVX512F__)
  return Isa::avx512;
#elif defined(__AVXVNNI__)
  return Isa::avxvnni;
#elif defined(__AVX2__)
  return Isa::avx2;
#else
  return Isa::scalar;
#endif
}

}  // namespace mezzotint::kernel
