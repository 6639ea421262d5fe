#include "mezzotint/kernel/cuda/cuda.h"

#include "mezzotint/base/error.h"
#include "mezzotint/kernel/cuda/launch.h"

namespace mezzotint::kernel::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error({.name = "cuda-failed",
               .problem = std::string(what) + " failed: " + cudaGetErrorString(status),
               .advice = "nvidia-smi tells whether the driver sees the GPU and whether its memory is full."});
}

bool built() {
  return true;
}

std::string architectures() {
  return MEZZOTINT_CUDA_ARCHITECTURES;
}

bool available() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return false;
  // A kernel that the device has no code for has no attributes either.
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major >= 8;
}

std::vector<Device> devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return {};
  std::vector<Device> found;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp facts{};
    check(cudaGetDeviceProperties(&facts, i), "reading the properties of a GPU");
    int clock = 0, width = 0;  // kHz and bits; twice a clock
    if (cudaDeviceGetAttribute(&clock, cudaDevAttrMemoryClockRate, i) != cudaSuccess) clock = 0;
    if (cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, i) != cudaSuccess) width = 0;
    found.push_back({.name = facts.name,
                     .major = facts.major,
                     .minor = facts.minor,
                     .multiprocessors = facts.multiProcessorCount,
                     .memory = facts.totalGlobalMem,
                     .memory_gbps = 2.0 * clock * width / 8 * 1e-6});
  }
  return found;
}

void use_device(int index) {
  check(cudaSetDevice(index), "choosing a GPU");
}

void synchronize(Stream stream) {
  check(cudaStreamSynchronize(stream), "a kernel");
}

void* allocate(uint64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "allocating device memory");
  return memory;
}

void release(void* memory) noexcept {
  (void)cudaFree(memory);
}

void copy_to_device(void* device, const void* host, uint64_t bytes) {
  check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copying to the GPU");
}

void copy_to_host(void* host, const void* device, uint64_t bytes) {
  check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copying from the GPU");
}

void copy_on_device(void* to, const void* from, uint64_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream), "copying on the GPU");
}

float elapsed_ms(void (*work)(void*), void* argument) {
  cudaEvent_t begin{}, end{};
  check(cudaEventCreate(&begin), "creating an event");
  check(cudaEventCreate(&end), "creating an event");
  check(cudaEventRecord(begin), "recording an event");
  work(argument);
  check(cudaEventRecord(end), "recording an event");
  check(cudaEventSynchronize(end), "a kernel");
  float ms = 0;
  check(cudaEventElapsedTime(&ms, begin, end), "reading an event");
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return ms;
}

}  // namespace mezzotint::kernel::cuda
