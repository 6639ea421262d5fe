#pragma once
#include <cstdint>
#include <string>
#include <vector>

struct CUstream_st;

/// Kernels on NVIDIA GPUs of compute capability 8.0 and newer. The headers of this folder need no CUDA; pointers are
/// device memory unless they say otherwise, and every call is queued on a stream and returns at once.
///
/// Where the library was built without CUDA (the default), available() is false and every other function throws Error
/// "cuda-not-built". Failures of the driver are Error "cuda-failed".
namespace mezzotint::kernel::cuda {

/// What cudaStream_t is; null is the default stream.
using Stream = CUstream_st*;

struct Device {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int multiprocessors = 0;
  uint64_t memory = 0;     ///< bytes
  double memory_gbps = 0;  ///< peak GB/s of the memory as the driver tells it; 0 where it does not
};

/// Whether the library was built with CUDA.
bool built();
/// Whether it was, and a device is there that it has code for.
bool available();
/// Every device that the driver shows; empty without one, or without CUDA.
std::vector<Device> devices();
/// Architectures that the kernels were compiled for, "80;89;90;120", or "".
std::string architectures();

/// Makes the device with this index the one that this thread's calls go to (the first one, unless told).
void use_device(int index);

/// Waits for everything queued on the stream; throws what failed on the way.
void synchronize(Stream stream);

/// Device memory for callers that have no CUDA of their own (tests, benchmarks).
void* allocate(uint64_t bytes);
void release(void* memory) noexcept;
void copy_to_device(void* device, const void* host, uint64_t bytes);
void copy_to_host(void* host, const void* device, uint64_t bytes);
void copy_on_device(void* to, const void* from, uint64_t bytes, Stream stream);

/// Milliseconds that what `work` queues on the default stream takes on the device.
float elapsed_ms(void (*work)(void*), void* argument);

}  // namespace mezzotint::kernel::cuda
