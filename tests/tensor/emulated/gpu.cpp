// The .cu files as C++, and for cuda.cu a GPU whose memory is the host's.
#include <cstdlib>
#include <cstring>

#include "mezzotint/kernel/cuda/codec.cu"
#include "mezzotint/kernel/cuda/gemm_int8.cu"
#include "mezzotint/kernel/cuda/groups.cu"
#include "mezzotint/kernel/cuda/nibbles.cu"
#include "mezzotint/kernel/cuda/rotate.cu"

namespace mezzotint::kernel::cuda {

bool built() {
  return true;
}
bool available() {
  return true;
}
std::vector<Device> devices() {
  return {{.name = "emulator", .major = 8}};
}
std::string architectures() {
  return "80";
}
void use_device(int) {}
void synchronize(Stream) {}
void* allocate(uint64_t bytes) {
  return std::malloc(bytes);
}
void release(void* memory) noexcept {
  std::free(memory);
}
void copy_to_device(void* device, const void* host, uint64_t bytes) {
  std::memcpy(device, host, bytes);
}
void copy_to_host(void* host, const void* device, uint64_t bytes) {
  std::memcpy(host, device, bytes);
}
void copy_on_device(void* to, const void* from, uint64_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}
float elapsed_ms(void (*work)(void*), void* argument) {
  work(argument);
  return 0;
}

}  // namespace mezzotint::kernel::cuda
