# What `cmake --install` (make install) puts where, and the Debian packages of `cpack`: wels (the program, its manual page, shell
# completions, service, libwels.so) and wels-dev (the engine as a library: headers, static libraries, find_package(wels)).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# --- the program
install(TARGETS wels COMPONENT wels)
set(generated ${CMAKE_BINARY_DIR}/generated)
add_custom_command(
  OUTPUT ${generated}/wels.bash ${generated}/_wels ${generated}/wels.fish ${generated}/wels.1
  COMMAND wels completion bash > ${generated}/wels.bash
  COMMAND wels completion zsh > ${generated}/_wels
  COMMAND wels completion fish > ${generated}/wels.fish
  COMMAND wels man > ${generated}/wels.1
  DEPENDS wels VERBATIM)
add_custom_target(wels_shell_help ALL
  DEPENDS ${generated}/wels.bash ${generated}/_wels ${generated}/wels.fish ${generated}/wels.1)
install(FILES ${generated}/wels.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT wels)
install(FILES ${generated}/wels.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME wels COMPONENT wels)
install(FILES ${generated}/_wels DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT wels)
install(FILES ${generated}/wels.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT wels)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT wels)
install(FILES web/dist/licences.txt DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME licences_of_the_page.txt COMPONENT wels)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs COMPONENT wels)
install(CODE "  # names where the program is installed, which is known only now
  set(WELS_PROGRAM \"\${CMAKE_INSTALL_PREFIX}/bin/wels\")
  configure_file(\"${CMAKE_SOURCE_DIR}/packaging/wels.service.in\"
                 \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/lib/systemd/system/wels.service\" @ONLY)" COMPONENT wels)

# --- the library
set(libraries wels_c wels_apps wels_distill wels_rl wels_serve wels_train wels_engine wels_tasks wels_data wels_model wels_nn wels_backend
              wels_backend_cpu wels_backend_ref wels_text wels_formats wels_tensor wels_base)
foreach(library ${libraries})
  target_include_directories(${library} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/wels>)
endforeach()
install(TARGETS ${libraries} EXPORT wels-targets DESTINATION ${CMAKE_INSTALL_LIBDIR}/wels COMPONENT wels-dev)
install(TARGETS wels_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT wels NAMELINK_COMPONENT wels-dev)
install(EXPORT wels-targets DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/wels COMPONENT wels-dev)
install(FILES src/capi/wels.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/wels COMPONENT wels-dev)
foreach(folder base tensor formats text backend nn model engine)
  install(DIRECTORY src/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/wels COMPONENT wels-dev
          FILES_MATCHING PATTERN "*.h" PATTERN "*_test.h" EXCLUDE
          PATTERN "backend/cpu" EXCLUDE PATTERN "backend/ref" EXCLUDE)  # devices are made by backend/registry.h
endforeach()
install(FILES src/apps/loaded_model.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/wels/apps COMPONENT wels-dev)
configure_package_config_file(packaging/wels-config.cmake.in ${generated}/wels-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/wels)
write_basic_package_version_file(${generated}/wels-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${generated}/wels-config.cmake ${generated}/wels-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/wels COMPONENT wels-dev)

# --- Debian packages
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME wels)
set(CPACK_PACKAGE_CONTACT "the wels authors <wels@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "DeepSeek's architecture, learned, run and served in one program")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL wels wels-dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_WELS_PACKAGE_NAME wels)
set(CPACK_DEBIAN_WELS_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_WELS_PACKAGE_RECOMMENDS bubblewrap)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)  # the system's list of libraries is renewed
set(CPACK_DEBIAN_WELS-DEV_PACKAGE_NAME wels-dev)
set(CPACK_DEBIAN_WELS-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_WELS-DEV_PACKAGE_DEPENDS
    "wels (= ${PROJECT_VERSION}), libpcre2-dev, nlohmann-json3-dev, libcli11-dev, libfmt-dev, libspdlog-dev, libzstd-dev, zlib1g-dev, libutf8proc-dev, libedit-dev, libcurl4-openssl-dev, libboost1.81-dev, libssl-dev, libsqlite3-dev, pkg-config")
include(CPack)
