# A name that is no level is an error, not a silent default.
add_test(NAME kernel.unknown_isa COMMAND test_kernel --gtest_filter=Isa.TheForcedLevelIsTheOneThatRuns)
set_tests_properties(kernel.unknown_isa PROPERTIES LABELS kernel ENVIRONMENT "MEZZOTINT_ISA=avx1024"
  PASS_REGULAR_EXPRESSION "MEZZOTINT_ISA names no instruction-set level")

# An ISA object must not hold a weak symbol.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
add_test(NAME kernel.weak_symbols
  COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/tools/check/weak_symbols.py ${PROJECT_BINARY_DIR})
set_tests_properties(kernel.weak_symbols PROPERTIES LABELS kernel)
