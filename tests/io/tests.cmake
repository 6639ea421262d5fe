# The hostile files in the repository are those that their script writes.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME io.hostile_files COMMAND ${CMAKE_COMMAND}
  -DPYTHON=${Python3_EXECUTABLE} -DSOURCE=${PROJECT_SOURCE_DIR}/tests/hostile -DMADE=${CMAKE_CURRENT_BINARY_DIR}/hostile
  -P ${CMAKE_CURRENT_SOURCE_DIR}/io/compare_hostile.cmake)
set_tests_properties(io.hostile_files PROPERTIES LABELS io)
