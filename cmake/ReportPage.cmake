# Puts the report's style and script (convert/report/page.css, page.js) into the library as text.
function(mezzotint_report_page target)
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/convert/report)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${folder}/page.css ${folder}/page.js)
  file(READ ${folder}/page.css style)
  file(READ ${folder}/page.js script)
  set(source ${PROJECT_BINARY_DIR}/generated/report_page.cpp)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT "// Written by cmake/ReportPage.cmake.
#include \"mezzotint/convert/report/html_parts.h\"
namespace mezzotint::convert {
const std::string_view kPageStyle = R\"page(@style@)page\";
const std::string_view kPageScript = R\"page(@script@)page\";
}
")
  target_sources(${target} PRIVATE ${source})
endfunction()
