# Killed conversions of the real program.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME convert.kill_resume COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tests/cli/kill_resume.py
  $<TARGET_FILE:mezzotint> $<TARGET_FILE:mezzotint-synth> ${PROJECT_SOURCE_DIR}/tools/shapes)
set_tests_properties(convert.kill_resume PROPERTIES LABELS program TIMEOUT 300 COST 40)
add_test(NAME convert.kill_resume_effort COMMAND ${Python3_EXECUTABLE}
  ${PROJECT_SOURCE_DIR}/tests/cli/kill_resume_effort.py
  $<TARGET_FILE:mezzotint> $<TARGET_FILE:mezzotint-synth> ${PROJECT_SOURCE_DIR}/tools/shapes)
set_tests_properties(convert.kill_resume_effort PROPERTIES LABELS program TIMEOUT 900 COST 60)
