# One file, one row of a table: adapter/algorithms/NAME.cpp defines `extern const Algorithm algorithm_NAME`,
# adapter/families/NAME.cpp `extern const Family family_NAME`. The tables are written from the file names, so that adding one
# edits no list.
function(mezzotint_adapter_table target folder type prefix header)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/adapter/${folder}/*.cpp)
  list(SORT sources)
  set(declarations "")
  set(entries "")
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(APPEND declarations "extern const ${type} ${prefix}_${name};\n")
    string(APPEND entries "    &${prefix}_${name},\n")
  endforeach()
  set(table ${PROJECT_BINARY_DIR}/generated/adapter_${folder}.cpp)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT "// Written by cmake/Adapters.cmake.
#include \"mezzotint/adapter/@header@\"
namespace mezzotint::adapter {
@declarations@
namespace {
constexpr const ${type}* k${type}Table[] = {
@entries@};
}
std::span<const ${type}* const> all_@folder@() {
  return k${type}Table;
}
}
")
  target_sources(${target} PRIVATE ${table})
endfunction()

function(mezzotint_adapter_tables target)
  mezzotint_adapter_table(${target} algorithms Algorithm algorithm algorithm.h)
  mezzotint_adapter_table(${target} families Family family family.h)
endfunction()
