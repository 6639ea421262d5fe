set_source_files_properties(tensor/cuda_choice_test.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)  # `using enum`
if(MEZZOTINT_CUDA)
  # Tier 2 with our kernels, as `make cuda` builds it: without the rooms that read files, so that it takes minutes less.
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/mezzotint/tensor/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/files\\.cpp$")
  file(GLOB tests CONFIGURE_DEPENDS tensor/cuda_*test.cpp support/main.cpp)
  add_executable(test_tensor_cuda ${tests} ${sources} $<TARGET_OBJECTS:mezzotint_base> $<TARGET_OBJECTS:mezzotint_kernel>
    $<TARGET_OBJECTS:mezzotint_kernel_cuda> $<TARGET_OBJECTS:mezzotint_formats>)
  target_include_directories(test_tensor_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(test_tensor_cuda PRIVATE mezzotint_settings mezzotint_libtorch CUDA::cudart_static
    mezzotint_fmt mezzotint_openblas nlohmann_json::nlohmann_json OpenMP::OpenMP_CXX Threads::Threads GTest::gtest
    GTest::gmock)
  mezzotint_unity(test_tensor_cuda 6)
  add_test(NAME tensor.cuda COMMAND test_tensor_cuda)
  set_tests_properties(tensor.cuda PROPERTIES LABELS "tensor;torch;cuda")
else()
  # The calls of our kernels, with the emulator of tests/cuda in the place of a GPU.
  add_executable(test_tensor_emulated tensor/emulated/launch_test.cpp tensor/emulated/gpu.cpp cuda/emulator.cpp)
  target_include_directories(test_tensor_emulated BEFORE PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/tensor/emulated/include)
  target_link_libraries(test_tensor_emulated PRIVATE mezzotint_torch mezzotint_test_support)
  add_test(NAME tensor.emulated COMMAND test_tensor_emulated)
  set_tests_properties(tensor.emulated PROPERTIES LABELS "tensor;torch;cuda")
endif()
