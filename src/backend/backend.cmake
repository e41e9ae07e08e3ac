# The devices. ISA files get their instruction-set flags one by one; everything else is built for plain x86-64
# (or whatever the machine is), so that one binary runs on every CPU and picks its kernels by CPUID.
wels_layer(backend/ref DEPS wels_tensor)
wels_layer(backend/cpu DEPS wels_backend_ref)
function(wels_isa file)
  if(EXISTS ${CMAKE_SOURCE_DIR}/src/backend/cpu/isa/${file})
    set_source_files_properties(${CMAKE_SOURCE_DIR}/src/backend/cpu/isa/${file} PROPERTIES COMPILE_OPTIONS "${ARGN}")
  endif()
endfunction()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma -mf16c -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC 12 in its own intrinsics
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  wels_isa(avx2.cc ${avx2})
  wels_isa(avx512.cc ${avx512})
  wels_isa(avx512_vnni.cc ${avx512} -mavx512vnni)
  wels_isa(avx512_bf16.cc ${avx512} -mavx512bf16 -mavx512vnni)
endif()
add_library(wels_backend STATIC src/backend/registry.cc)
target_link_libraries(wels_backend PUBLIC wels_backend_cpu)
