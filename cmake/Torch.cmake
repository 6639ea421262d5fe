# Tier 2: libtorch as it lies in a PyTorch wheel. MEZZOTINT_TORCH names its folder (python -c "import torch;
# print(torch.__path__[0])"). Not by its own TorchConfig.cmake, which looks for compilers and CUDA of its own accord and
# edits the flags of everything.
find_path(MEZZOTINT_TORCH_HEADERS ATen/core/Tensor.h PATHS ${MEZZOTINT_TORCH}/include NO_DEFAULT_PATH NO_CACHE REQUIRED)
add_library(mezzotint_libtorch INTERFACE IMPORTED)
set(libraries "")
foreach(name torch torch_cpu c10)
  find_library(MEZZOTINT_LIB_${name} ${name} PATHS ${MEZZOTINT_TORCH}/lib NO_DEFAULT_PATH NO_CACHE REQUIRED)
  list(APPEND libraries ${MEZZOTINT_LIB_${name}})
endforeach()
foreach(name torch_cuda c10_cuda)
  find_library(MEZZOTINT_LIB_${name} ${name} PATHS ${MEZZOTINT_TORCH}/lib NO_DEFAULT_PATH NO_CACHE)
  if(MEZZOTINT_LIB_${name})
    list(APPEND libraries ${MEZZOTINT_LIB_${name}})
  endif()
endforeach()
# The rpath below says all; CMake's own would warn that libtorch's folder has a libgomp.so.1, too.
set(CMAKE_SKIP_BUILD_RPATH ON)
# A wheel brings headers of a {fmt} of its own, which are found first and are not the version that base/fmt.cpp compiles.
# Our BLAS stays ours, and libtorch's its own: without this the program would export sgemm_ and libtorch would call it.
set_target_properties(mezzotint_libtorch PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${MEZZOTINT_TORCH_HEADERS};${MEZZOTINT_TORCH_HEADERS}/torch/csrc/api/include"
  INTERFACE_COMPILE_DEFINITIONS FMT_HEADER_ONLY
  INTERFACE_LINK_LIBRARIES "${libraries}"
  INTERFACE_LINK_OPTIONS "LINKER:--exclude-libs=libopenblas.a,--no-as-needed;LINKER:-rpath,${MEZZOTINT_TORCH}/lib")
