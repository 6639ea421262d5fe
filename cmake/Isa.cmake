# One source, one object per instruction set.
#
# A file NAME.isa.cpp is compiled once for each base level, NAME.isa_<level>.cpp only for that level. The level is visible
# as the macro MEZZOTINT_ISA (scalar, avx2, ...); these files are the only ones that get -m flags. kernel/isa.h names the
# same levels and says which CPU features each one needs.
set(MEZZOTINT_ISA_BASE scalar)
set(MEZZOTINT_ISA_FLAGS_scalar "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  list(APPEND MEZZOTINT_ISA_BASE avx2 avx512)
  set(MEZZOTINT_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
  set(MEZZOTINT_ISA_FLAGS_avx512 ${MEZZOTINT_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
      -mprefer-vector-width=512)
  set(MEZZOTINT_ISA_FLAGS_avxvnni ${MEZZOTINT_ISA_FLAGS_avx2} -mavxvnni)
  set(MEZZOTINT_ISA_FLAGS_avx512vnni ${MEZZOTINT_ISA_FLAGS_avx512} -mavx512vnni)
  set(MEZZOTINT_ISA_FLAGS_avx512bf16 ${MEZZOTINT_ISA_FLAGS_avx512vnni} -mavx512vbmi -mavx512bf16)
  set(MEZZOTINT_ISA_FLAGS_amx ${MEZZOTINT_ISA_FLAGS_avx512bf16} -mamx-tile -mamx-int8 -mamx-bf16)
endif()

# Flags that let plain loops vectorize without changing one result bit.
set(MEZZOTINT_ISA_COMMON -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  set(MEZZOTINT_ISA_COMMON -fno-math-errno -fno-trapping-math -ffp-contract=off)
endif()

# g++ 12 takes the deliberately undefined registers of its own AVX-512 intrinsics for a mistake of ours (GCC bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND MEZZOTINT_ISA_COMMON -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

# Kernels throw nothing, and tables of exceptions would bring a weak symbol into the object (tools/check/weak_symbols.py).
list(APPEND MEZZOTINT_ISA_COMMON -fno-exceptions)

function(mezzotint_isa_sources target)
  foreach(source ${ARGN})
    get_filename_component(source ${source} ABSOLUTE)
    string(MD5 hash ${source})
    string(SUBSTRING ${hash} 0 8 hash)
    get_filename_component(name ${source} NAME_WE)
    set(levels ${MEZZOTINT_ISA_BASE})
    if(source MATCHES "\\.isa_([a-z0-9]+)\\.cpp$")
      set(levels ${CMAKE_MATCH_1})
      if(NOT DEFINED MEZZOTINT_ISA_FLAGS_${levels})
        continue()  # a level of another processor family
      endif()
    endif()
    foreach(level ${levels})
      set(wrapper ${PROJECT_BINARY_DIR}/isa/${name}.${hash}.${level}.cpp)
      file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
      set_source_files_properties(${wrapper} TARGET_DIRECTORY ${target} PROPERTIES
        COMPILE_OPTIONS "${MEZZOTINT_ISA_COMMON};${MEZZOTINT_ISA_FLAGS_${level}}"
        COMPILE_DEFINITIONS "MEZZOTINT_ISA=${level}"
        OBJECT_DEPENDS ${source})
      target_sources(${target} PRIVATE ${wrapper})
    endforeach()
  endforeach()
endfunction()
