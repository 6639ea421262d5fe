# `cmake --install`: the library, its headers and a CMake package; the program where it was built.
#   find_package(mezzotint 0.1 REQUIRED)
#   target_link_libraries(app PRIVATE mezzotint::core)
# Where tier 2 was built, `find_package(mezzotint 0.1 REQUIRED COMPONENTS torch)` with MEZZOTINT_TORCH naming a PyTorch of the
# same version adds mezzotint::torch.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mezzotint)
install(TARGETS mezzotint_core EXPORT mezzotintTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mezzotintTargets NAMESPACE mezzotint:: DESTINATION ${package_dir})
# A format's own headers stay private: everything is reached through the table of formats. Formats outside the library
# are put together from common/'s pieces.
set(private "cli|run|convert/presets|formats/[^/.]+")
if(NOT MEZZOTINT_TORCH)
  string(APPEND private "|tensor|nn|models")
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/mezzotint DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" REGEX "/src/mezzotint/(${private})$" EXCLUDE)
install(FILES ${PROJECT_SOURCE_DIR}/src/mezzotint/formats/common/pieces.h
  ${PROJECT_SOURCE_DIR}/src/mezzotint/formats/common/bytewise.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mezzotint/formats/common)
install(DIRECTORY ${PROJECT_BINARY_DIR}/generated/mezzotint DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")

if(MEZZOTINT_TORCH)
  install(TARGETS mezzotint_torch EXPORT mezzotintTorchTargets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT mezzotintTorchTargets NAMESPACE mezzotint:: DESTINATION ${package_dir})
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/Torch.cmake DESTINATION ${package_dir})
endif()

get_property(formats GLOBAL PROPERTY MEZZOTINT_FORMATS)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/mezzotintConfig.cmake.in
  ${PROJECT_BINARY_DIR}/mezzotintConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mezzotintConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mezzotintConfig.cmake ${PROJECT_BINARY_DIR}/mezzotintConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/OpenBlas.cmake ${CMAKE_CURRENT_LIST_DIR}/FormatTable.cmake DESTINATION ${package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

if(TARGET mezzotint)
  install(TARGETS mezzotint RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
