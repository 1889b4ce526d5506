# hec_guest(NAME SOURCES... HEADERS... SCRIPT ld): a bare-metal 32-bit payload, ELF32 with a Multiboot 1 header, as NAME.elf in the
# build directory. Plain gcc is enough: no library, no headers but the compiler's own.
function(hec_guest name)
  cmake_parse_arguments(G "" "SCRIPT" "SOURCES;HEADERS" ${ARGN})
  set(elf ${CMAKE_BINARY_DIR}/guest/${name}.elf)
  add_custom_command(
    OUTPUT ${elf}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/guest
    COMMAND ${CMAKE_C_COMPILER} -m32 -O2 -ffreestanding -fno-pic -fno-stack-protector -mgeneral-regs-only
            -fno-asynchronous-unwind-tables -Wall -Wextra -Werror -nostdlib -static -no-pie -Wno-unused-command-line-argument
            -Wl,--build-id=none,--no-warn-rwx-segments,-T,${G_SCRIPT} ${G_SOURCES} -o ${elf}
    DEPENDS ${G_SOURCES} ${G_HEADERS} ${G_SCRIPT}
    COMMENT "guest payload ${name}" VERBATIM)
  add_custom_target(guest-${name} ALL DEPENDS ${elf})
endfunction()

# hec_embed(TARGET NAME): NAME.elf's bytes in TARGET, from guest_NAME to guest_NAME_end.
function(hec_embed target name)
  set(asm ${CMAKE_BINARY_DIR}/guest/${name}_image.S)
  file(WRITE ${asm} "    .section .rodata
    .globl guest_${name}, guest_${name}_end
    .balign 16
guest_${name}:
    .incbin \"${CMAKE_BINARY_DIR}/guest/${name}.elf\"
guest_${name}_end:
    .section .note.GNU-stack, \"\", @progbits
")
  set_source_files_properties(${asm} PROPERTIES OBJECT_DEPENDS ${CMAKE_BINARY_DIR}/guest/${name}.elf)
  target_sources(${target} PRIVATE ${asm})
  add_dependencies(${target} guest-${name})
endfunction()
