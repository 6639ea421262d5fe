# PCRE2, 8-bit: the regular expressions of presets and options. A target that uses it links ${MEZZOTINT_PCRE2}.
find_path(PCRE2_INCLUDE_DIR pcre2.h REQUIRED)
find_library(PCRE2_LIBRARY pcre2-8 REQUIRED)
set(MEZZOTINT_PCRE2 ${PCRE2_LIBRARY})
