# Sparse files of 6 and 3 GB in a folder of the build, gone afterwards; skipped where the disk is too full.
if(NOT MEZZOTINT_SANITIZE)  # which need memory of their own
  add_executable(test_nn_memory nn/memory/memory.cpp)
  target_link_libraries(test_nn_memory PRIVATE mezzotint_torch mezzotint_synth mezzotint_test_support)
  add_test(NAME nn.memory COMMAND test_nn_memory ${CMAKE_CURRENT_BINARY_DIR}/nn-memory)
  set_tests_properties(nn.memory PROPERTIES LABELS "nn;torch" SKIP_RETURN_CODE 77 TIMEOUT 600 COST 60)
endif()

# Layers with adapters as a program, for tests/peers.
add_executable(bypass_layers EXCLUDE_FROM_ALL nn/layers/bypass_layers.cpp)
target_link_libraries(bypass_layers PRIVATE mezzotint_torch mezzotint_settings nlohmann_json::nlohmann_json)
