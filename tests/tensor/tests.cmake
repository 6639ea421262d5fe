# Calls of our kernels for GPUs, with the emulator of tests/cuda in the place of a GPU. A build with CUDA has the kernels
# themselves.
if(NOT MEZZOTINT_CUDA)
  add_executable(test_tensor_emulated tensor/emulated/launch_test.cpp tensor/emulated/gpu.cpp cuda/emulator.cpp)
  target_include_directories(test_tensor_emulated BEFORE PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/tensor/emulated/include)
  target_link_libraries(test_tensor_emulated PRIVATE mezzotint_torch mezzotint_test_support)
  add_test(NAME tensor.emulated COMMAND test_tensor_emulated)
  set_tests_properties(tensor.emulated PROPERTIES LABELS "tensor;torch;cuda")
endif()
