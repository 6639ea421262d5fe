# The headers of {fmt}; its code is compiled in base/fmt.cpp.
find_package(fmt REQUIRED)
add_library(mezzotint_fmt INTERFACE)
target_include_directories(mezzotint_fmt SYSTEM INTERFACE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
