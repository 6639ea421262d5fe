#include "mezzotint/tensor/cuda/gpu.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <map>
#include <mutex>

namespace mezzotint::tensor::cuda {
namespace {

/// Compute capability times 10, or 0.
int ask_driver(int index) {
  // Of cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
  constexpr int kMajor = 75, kMinor = 76;
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // never closed: the driver stays for the process
  if (driver == nullptr) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
  if (init == nullptr || get == nullptr || attribute == nullptr) return 0;
  int device = 0, major = 0, minor = 0;
  if (init(0) != 0 || get(&device, index) != 0) return 0;
  if (attribute(&major, kMajor, device) != 0 || attribute(&minor, kMinor, device) != 0) return 0;
  return 10 * major + minor;
}

Gpu ask(int index) {
  Gpu gpu{.capability = ask_driver(index)};
  if (at::detail::getCUDAHooks().hasCUDART())
    gpu.runtime = static_cast<int>(at::detail::getCUDAHooks().versionCUDART());
  gpu.kernels = gpu.capability >= 80 && kernel::cuda::available();
  return gpu;
}

}  // namespace

Gpu gpu_of(at::Device device) {
  static std::mutex mutex;
  static std::map<int, Gpu> known;
  if (!device.is_cuda()) return {};
  const int index = device.has_index() ? device.index() : 0;
  const std::lock_guard lock(mutex);
  const auto found = known.find(index);
  return found != known.end() ? found->second : known.emplace(index, ask(index)).first->second;
}

Launch::Launch(at::Device device) {
  if (!device.is_cuda()) return;  // a GPU that a test emulates
  // Both runtimes, ours and libtorch's, are told: they share the driver's current context, which the guard puts back.
  guard_.reset_device(device);
  kernel::cuda::use_device(device.has_index() ? device.index() : 0);
  const c10::impl::VirtualGuardImpl guard(device.type());
  stream = static_cast<kernel::cuda::Stream>(guard.getStream(device).native_handle());
}

}  // namespace mezzotint::tensor::cuda
