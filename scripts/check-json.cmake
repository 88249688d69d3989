# cmake -DFILE=<path> -P check-json.cmake: fails unless the file holds one JSON object or array.
file(READ "${FILE}" text)
string(JSON type ERROR_VARIABLE error TYPE "${text}")
if(error)
  message(FATAL_ERROR "${FILE}: ${error}")
elseif(NOT type MATCHES "OBJECT|ARRAY")
  message(FATAL_ERROR "${FILE}: holds a ${type}, not an object or array")
endif()
