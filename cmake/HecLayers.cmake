# hec_layer(NAME DEPS lower... [SUBDIRS sub...] [LIBS lib...])
# One room of src/ as a static library, and the proof that it keeps to the layer
# rule: layercheck-NAME links the whole archive against the named rooms only.
set(HEC_EMPTY_MAIN ${CMAKE_BINARY_DIR}/empty_main.c)
file(WRITE ${HEC_EMPTY_MAIN} "int main(void) { return 0; }\n")

add_custom_target(layers)

function(hec_layer name)
  cmake_parse_arguments(L "" "" "DEPS;SUBDIRS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.c ${PROJECT_SOURCE_DIR}/src/${name}/*.S)
  foreach(sub ${L_SUBDIRS})
    file(GLOB more CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/${sub}/*.c
         ${PROJECT_SOURCE_DIR}/src/${name}/${sub}/*.S)
    list(APPEND sources ${more})
  endforeach()
  list(FILTER sources EXCLUDE REGEX "/cli/main\\.c$")
  if(NOT sources)
    set(sources ${HEC_EMPTY_ROOM})
  endif()
  add_library(hec_${name} STATIC ${sources})
  target_include_directories(hec_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  foreach(dep ${L_DEPS})
    target_link_libraries(hec_${name} PUBLIC hec_${dep})
  endforeach()
  target_link_libraries(hec_${name} PUBLIC ${L_LIBS})

  add_executable(layercheck-${name} ${HEC_EMPTY_MAIN})
  target_compile_options(layercheck-${name} PRIVATE -Wno-missing-prototypes)
  target_link_libraries(layercheck-${name} PRIVATE -Wl,--whole-archive hec_${name} -Wl,--no-whole-archive
                        -Wl,--no-undefined)
  add_dependencies(layers layercheck-${name})
endfunction()

set(HEC_EMPTY_ROOM ${CMAKE_BINARY_DIR}/empty_room.c)
file(WRITE ${HEC_EMPTY_ROOM} "extern int hec_room_without_code;\n")
