#!/usr/bin/env bash
# Runs what `make cuda` built on a machine with an NVIDIA GPU: the tests, then the benchmarks.
#
#     tools/gpu/check.sh [folder with test_cuda and bench_cuda]      default: build/cuda/bin
#
# The programs need a driver, glibc and OpenMP's libgomp, no CUDA toolkit and no other package, so they can be built
# elsewhere and carried. Where nvcc and cmake are here and the programs are not, builds them. What is written goes to
# $OUT too, where that is set. Exit code 0 only if a GPU ran the tests and all passed.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build/cuda/bin}

if [ ! -x "$bin/test_cuda" ] || [ ! -x "$bin/bench_cuda" ]; then
  command -v nvcc >/dev/null && command -v cmake >/dev/null || {
    echo "neither $bin/test_cuda nor nvcc and cmake are here: run make cuda elsewhere and carry $bin" >&2
    exit 1
  }
  make cuda
fi

out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv || {
  echo "no GPU: nvidia-smi does not run" >&2
  exit 1
}

# cuBLAS, for comparison, may lie beside PyTorch.
for folder in $(python3 -c 'import site, glob
for root in site.getsitepackages(): print(*glob.glob(root + "/nvidia/*/lib"))' 2>/dev/null) /usr/local/cuda/lib64; do
  if compgen -G "$folder/libcublas.so*" >/dev/null; then
    export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  fi
done

status=0
"$bin/test_cuda" --gtest_filter='*gpu*' 2>&1 | tee "$out/test_cuda.txt" || status=1
if grep -q "no GPU" "$out/test_cuda.txt"; then
  echo "the tests saw no GPU" >&2
  status=1
fi
# Tier 2, where it was built with a PyTorch that has CUDA (TORCH=torch make cuda) and that is here.
if [ -x "$bin/test_tensor_cuda" ]; then
  "$bin/test_tensor_cuda" 2>&1 | tee "$out/test_tensor_cuda.txt" || status=1
  if grep -q "no GPU" "$out/test_tensor_cuda.txt"; then echo "PyTorch has no CUDA: tier 2 did not run on the GPU"; fi
fi
# Memory errors and races, where the tool is here; the emulator cannot see those of the hardware.
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    timeout 200 compute-sanitizer --tool "$tool" --error-exitcode 9 "$bin/test_cuda" \
      --gtest_filter='CudaGemmInt8/gpu.Blockwise*:CudaFormats/gpu.FourBit*:CudaFormats/gpu.Rotations*' \
      2>&1 | tail -n 15 | tee "$out/$tool.txt" || status=1
  done
fi
"$bin/bench_cuda" 2>&1 | tee "$out/bench_cuda.txt" || status=1
exit $status
