# Compile settings that every target of ours shares. -O2 outside kernels: -O3 there doubles compile time for nothing.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
add_library(mezzotint_settings INTERFACE)
target_include_directories(mezzotint_settings INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>)
target_compile_features(mezzotint_settings INTERFACE cxx_std_20)
# No contraction: a fused multiply-add would change stored bytes between instruction sets.
target_compile_options(mezzotint_settings INTERFACE
  -Wall -Wextra -Wshadow -Wno-psabi -Wno-missing-field-initializers -ffp-contract=off $<$<BOOL:${MEZZOTINT_WERROR}>:-Werror>)
if(MEZZOTINT_SANITIZE)
  target_compile_options(mezzotint_settings INTERFACE
    -fsanitize=${MEZZOTINT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(mezzotint_settings INTERFACE -fsanitize=${MEZZOTINT_SANITIZE})
endif()

# One file that runs wherever glibc is new enough (tools/dist/check-glibc says which). Whatever is linked later (OpenMP,
# BLAS) must come as an archive too; the check fails where it does not.
if(MEZZOTINT_STATIC)
  set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
  # Collecting sections drops the parts of libstdc++ that ask for a newer glibc (arc4random) and are not used.
  add_link_options(-static-libstdc++ -static-libgcc -Wl,--gc-sections)
endif()

find_program(MEZZOTINT_CCACHE ccache)
if(MEZZOTINT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MEZZOTINT_CCACHE})
endif()
