# Kernels for NVIDIA GPUs. With MEZZOTINT_CUDA the .cu files below a room are compiled and its no_cuda.cpp, which defines
# the same functions, is left out (Rooms.cmake); without, it is the other way round. No source asks whether CUDA is there.
set(MEZZOTINT_CUDA_ARCHITECTURES "80-real;89-real;90-real;120" CACHE STRING
  "GPU architectures; the last one also as PTX, for what comes after it")

if(MEZZOTINT_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES ${MEZZOTINT_CUDA_ARCHITECTURES})
  find_program(nvcc nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin NO_CACHE)
  if(nvcc AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${nvcc})
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")
endif()

# Compiles the .cu files below a room as objects that go into the library like a room of their own.
function(mezzotint_cuda_sources room)
  if(NOT MEZZOTINT_CUDA)
    return()
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${room}/*.cu)
  if(NOT sources)
    return()
  endif()
  add_library(mezzotint_${room}_cuda OBJECT ${sources})
  target_include_directories(mezzotint_${room}_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src)
  string(REGEX REPLACE "-real|-virtual" "" architectures "${MEZZOTINT_CUDA_ARCHITECTURES}")
  string(REPLACE ";" "," architectures "${architectures}")
  target_compile_definitions(mezzotint_${room}_cuda PRIVATE MEZZOTINT_CUDA_ARCHITECTURES="${architectures}")
  # No contraction, no flushing, true divisions: a fused multiply-add would change stored bytes. The scalar definitions in
  # base/ are host and device functions already; relaxed constexpr lets device code call the few plain ones.
  target_compile_options(mezzotint_${room}_cuda PRIVATE --fmad=false --ftz=false --prec-div=true --prec-sqrt=true
    --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers,-ffp-contract=off
    $<$<BOOL:${MEZZOTINT_WERROR}>:-Werror=all-warnings> -Xptxas=-warn-spills)
  set_property(GLOBAL APPEND PROPERTY MEZZOTINT_ROOMS ${room}_cuda)
endfunction()
