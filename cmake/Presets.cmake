# One file, one preset: convert/presets/NAME.cpp defines `extern const Preset preset_NAME`; the table of all of them is
# written from the file names, so that adding a preset edits no list.
function(mezzotint_presets target)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/convert/presets/*.cpp)
  list(SORT sources)
  set(declarations "")
  set(entries "")
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    string(APPEND declarations "extern const Preset preset_${name};\n")
    string(APPEND entries "    &presets::preset_${name},\n")
  endforeach()
  set(table ${PROJECT_BINARY_DIR}/generated/preset_table.cpp)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT "// Written by cmake/Presets.cmake.
#include \"mezzotint/convert/preset.h\"
namespace mezzotint::convert {
namespace presets {
@declarations@}
namespace {
constexpr const Preset* kPresets[] = {
@entries@};
}
std::span<const Preset* const> all_presets() {
  return kPresets;
}
}
")
  target_sources(${target} PRIVATE ${table})
endfunction()
