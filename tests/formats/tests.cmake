if(MEZZOTINT_SANITIZE OR MEZZOTINT_EXTRA_FORMATS)
  return()  # the release build does it, and a build with more formats must not nest
endif()

# Alone, because it compiles on all cores; first, because then no core waits for the end of another test.
include(ProcessorCount)
ProcessorCount(cores)
add_test(NAME formats.toy COMMAND ${CMAKE_COMMAND} -D SOURCE=${PROJECT_SOURCE_DIR} -D SCRATCH=${PROJECT_BINARY_DIR}/toy_format
  -D CXX=${CMAKE_CXX_COMPILER} -D JOBS=${cores} -P ${CMAKE_CURRENT_LIST_DIR}/../toy_format/run.cmake)
set_tests_properties(formats.toy PROPERTIES LABELS formats TIMEOUT 600 RUN_SERIAL TRUE COST 1000)
