# OpenBLAS with LAPACK, the serial build: threads are ours, one call each (design.md: dense algebra). Linked as an archive,
# so that no other BLAS of the machine takes its place at run time. It picks its instruction set when the program starts.
find_library(OPENBLAS_LIBRARY NAMES libopenblas.a PATH_SUFFIXES openblas-serial REQUIRED)
set(MEZZOTINT_OPENBLAS ${OPENBLAS_LIBRARY})
