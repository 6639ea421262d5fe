# OpenBLAS with LAPACK, the serial build: threads are ours, one call each (design.md: dense algebra). Linked as an archive,
# so that no other BLAS of the machine takes its place at run time. It picks its instruction set when the program starts.
# Its work buffers are handed out through kernel/dense.cpp, which says why. Installed with the package.
find_library(MEZZOTINT_OPENBLAS NAMES libopenblas.a PATH_SUFFIXES openblas-serial REQUIRED)
add_library(mezzotint_openblas INTERFACE IMPORTED)
set_target_properties(mezzotint_openblas PROPERTIES INTERFACE_LINK_LIBRARIES ${MEZZOTINT_OPENBLAS}
  INTERFACE_LINK_OPTIONS "LINKER:--wrap=blas_memory_alloc,--wrap=blas_memory_free")
