# Writes "git describe" of SRC, or OTHERWISE, into OUT as a C string literal; touches OUT only when it changes.
execute_process(COMMAND git describe --always --dirty --abbrev=12 WORKING_DIRECTORY ${SRC}
                OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE rc)
if(NOT rc EQUAL 0)
  set(version "${OTHERWISE}")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "\"${version}\"\n")
