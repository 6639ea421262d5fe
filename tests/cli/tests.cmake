# Units of the command line, and the real program run by a script.
target_link_libraries(test_cli PRIVATE mezzotint_cli)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME cli.program COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cli/run.py $<TARGET_FILE:mezzotint>)
set_tests_properties(cli.program PROPERTIES LABELS cli TIMEOUT 900)
