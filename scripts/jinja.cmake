# Builds llama.cpp's common/jinja (MIT) as a static library of its own.
cmake_minimum_required(VERSION 3.25)
project(jinja CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_package(nlohmann_json REQUIRED)
# json.cpp takes one macro from ggml.h, which would bring in all of ggml.
file(WRITE ${CMAKE_BINARY_DIR}/ggml.h
  "#pragma once\n#include <cstdlib>\n#define GGML_ASSERT(x) ((x) ? (void)0 : abort())\n")
file(GLOB sources ${COMMON}/jinja/*.cpp)
add_library(jinja STATIC ${sources} ${COMMON}/json.cpp ${COMMON}/unicode.cpp)
target_include_directories(jinja PRIVATE ${COMMON} ${CMAKE_BINARY_DIR})
target_link_libraries(jinja PRIVATE nlohmann_json::nlohmann_json)
install(TARGETS jinja ARCHIVE DESTINATION lib)
install(DIRECTORY ${COMMON}/jinja DESTINATION include FILES_MATCHING PATTERN "*.h")
install(FILES ${COMMON}/json.h DESTINATION include)
