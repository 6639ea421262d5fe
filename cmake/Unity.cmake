# Several files of a target in one translation unit: what they all include is compiled once, which halves the time from nothing.
# Names in their anonymous namespaces must differ. -D MEZZOTINT_UNITY=OFF compiles each file alone, as an editor wants it.
option(MEZZOTINT_UNITY "Compile several files at once" ON)

function(mezzotint_unity target batch)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${MEZZOTINT_UNITY} UNITY_BUILD_BATCH_SIZE ${batch})
endfunction()
