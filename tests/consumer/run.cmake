# Installs the library to a scratch prefix, then configures, builds and runs a program that knows only that prefix.
# With tier 2 the examples are built that way, too.
#   cmake -D BUILD=... -D SOURCE=... -D SCRATCH=... -D CXX=... -D EXAMPLES=... -D TORCH=... -P run.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT code EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "exit ${code} from: ${command}\n${text}")
  endif()
  set(output "${text}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${SCRATCH}/build -G Ninja -D CMAKE_BUILD_TYPE=Release -D CMAKE_CXX_COMPILER=${CXX}
  -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix -D CMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
run(${CMAKE_COMMAND} --build ${SCRATCH}/build)
run(${SCRATCH}/build/consumer)
if(NOT output MATCHES "tensors a layer")
  message(FATAL_ERROR "the consumer saw no format:\n${output}")
endif()
message("${output}")

if(TORCH)
  run(${CMAKE_COMMAND} -S ${EXAMPLES} -B ${SCRATCH}/examples -G Ninja -D CMAKE_BUILD_TYPE=Release
    -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix -D CMAKE_FIND_USE_PACKAGE_REGISTRY=OFF
    -D MEZZOTINT_TORCH=${TORCH})
  run(${CMAKE_COMMAND} --build ${SCRATCH}/examples)
endif()

# The prefix must stand alone: nothing installed may name the build or the source tree.
file(GLOB_RECURSE installed ${SCRATCH}/prefix/*.cmake ${SCRATCH}/prefix/*.h)
foreach(file ${installed})
  file(READ ${file} text)
  string(FIND "${text}" "${BUILD}" position)
  if(NOT position EQUAL -1)
    message(FATAL_ERROR "${file} names the build tree")
  endif()
endforeach()
