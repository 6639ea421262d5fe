# One file, one recipe: convert/recipes/NAME.json goes into the library as text.
function(mezzotint_recipes target)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/convert/recipes/*.json)
  list(SORT sources)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources})
  set(entries "")
  foreach(source ${sources})
    file(READ ${source} text)
    string(APPEND entries "    R\"recipe(${text})recipe\",\n")
  endforeach()
  set(table ${PROJECT_BINARY_DIR}/generated/recipe_table.cpp)
  file(CONFIGURE OUTPUT ${table} @ONLY CONTENT "// Written by cmake/Recipes.cmake.
#include \"mezzotint/convert/shipped_recipes.h\"
namespace mezzotint::convert {
namespace {
constexpr std::string_view kTexts[] = {
@entries@};
}
std::span<const std::string_view> shipped_recipe_texts() {
  return kTexts;
}
}
")
  target_sources(${target} PRIVATE ${table})
endfunction()
