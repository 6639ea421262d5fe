# Several files of a target in one translation unit: what they all include is compiled once, which halves the time from nothing.
# Names in their anonymous namespaces must differ. -D MEZZOTINT_UNITY=OFF compiles each file alone, as an editor wants it.
option(MEZZOTINT_UNITY "Compile several files at once" ON)

function(mezzotint_unity target batch)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${MEZZOTINT_UNITY} UNITY_BUILD_BATCH_SIZE ${batch})
endfunction()

# The files of a folder in one unit: names may be the same in other folders. CMake leaves out those with options of their own.
function(mezzotint_unity_by_folder target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${MEZZOTINT_UNITY} UNITY_BUILD_MODE GROUP)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    get_filename_component(folder ${source} DIRECTORY)
    string(MAKE_C_IDENTIFIER ${folder} group)
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
  endforeach()
endfunction()
