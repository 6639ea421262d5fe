# One file, one row of a table: NAME.cpp in a folder defines `extern const TYPE PREFIX_NAME`, and the table of all of them is
# written from the file names, so that adding a row edits no list.
#   mezzotint_row_table(target folder type prefix function header namespace [rows_namespace])
# defines `std::span<const TYPE* const> FUNCTION()` in `namespace`, as `header` declares it; the rows stand there too, or in
# rows_namespace within it.
function(mezzotint_row_table target folder type prefix function header namespace)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/*.cpp)
  list(SORT sources)
  set(scope "")
  if(ARGC GREATER 7)
    set(scope "${ARGV7}::")
    set(open "namespace ${ARGV7} {\n")
    set(close "}\n")
  endif()
  set(declarations "")
  set(entries "")
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(APPEND declarations "extern const ${type} ${prefix}_${name};\n")
    string(APPEND entries "    &${scope}${prefix}_${name},\n")
  endforeach()
  set(table ${PROJECT_BINARY_DIR}/generated/${prefix}_table.cpp)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT "// Written by cmake/RowTable.cmake.
#include \"mezzotint/@header@\"
namespace @namespace@ {
@open@@declarations@@close@namespace {
constexpr const @type@* k@type@Table[] = {
@entries@};
}
std::span<const @type@* const> @function@() {
  return k@type@Table;
}
}
")
  target_sources(${target} PRIVATE ${table})
endfunction()
