# The ONNX C++ library (checker, version converter, inliner, shape inference) out of its
# source distribution, as one static library. Its own build wants a newer CMake than Debian's
# and finds protobuf its own way.
# Variables: ONNX (the unpacked source distribution).
cmake_minimum_required(VERSION 3.25)
project(onnx LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
find_package(Protobuf REQUIRED)

set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${generated}/onnx)
foreach(proto onnx-ml onnx-operators-ml onnx-data)
  add_custom_command(
    OUTPUT ${generated}/onnx/${proto}.pb.cc ${generated}/onnx/${proto}.pb.h
    COMMAND protobuf::protoc -I${ONNX} --cpp_out=${generated} ${ONNX}/onnx/${proto}.proto
    DEPENDS ${ONNX}/onnx/${proto}.proto)
  list(APPEND protos ${generated}/onnx/${proto}.pb.cc)
endforeach()
file(STRINGS ${ONNX}/VERSION_NUMBER version LIMIT_COUNT 1)
string(REGEX MATCH "^([0-9]+)\\.([0-9]+)\\.([0-9]+)" _ ${version})
set(ONNX_VERSION ${version})
set(ONNX_VERSION_MAJOR ${CMAKE_MATCH_1})
set(ONNX_VERSION_MINOR ${CMAKE_MATCH_2})
set(ONNX_VERSION_PATCH ${CMAKE_MATCH_3})
configure_file(${ONNX}/onnx/common/version.h.in ${generated}/onnx/common/version.h)

file(GLOB_RECURSE sources ${ONNX}/onnx/*.cc)
list(FILTER sources EXCLUDE REGEX "cpp2py|/fuzz/|/test/|/backend/|/bin/")
add_library(onnx STATIC ${sources} ${protos})
target_include_directories(onnx PUBLIC ${generated} ${ONNX})
target_compile_definitions(onnx PUBLIC ONNX_NAMESPACE=onnx ONNX_ML=1)
target_compile_options(onnx PRIVATE -w)
target_link_libraries(onnx PUBLIC protobuf::libprotobuf)

install(TARGETS onnx DESTINATION lib)
install(DIRECTORY ${ONNX}/onnx ${generated}/onnx DESTINATION include FILES_MATCHING PATTERN "*.h")
