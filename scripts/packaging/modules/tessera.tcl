#%Module1.0
# SPDX-License-Identifier: Apache-2.0
# Module file for Environment Modules: copy to <module path>/tessera/0.1.0 and set the two lines below.
set prefix /opt/tessera/0.1.0    ;# cmake --install build --prefix <prefix>
set needs  {openmpi hdf5}        ;# the modules that were loaded when it was built, MPI first

module-whatis "MPI-native training of transformers with ZeRO, a program and a library"
proc ModulesHelp {} {
  global prefix
  puts stderr "tessera --help; man tessera. Under Slurm: the templates in $prefix/share/tessera/slurm."
}

conflict tessera
foreach name $needs { module load $name }

prepend-path PATH              $prefix/bin
prepend-path LD_LIBRARY_PATH   $prefix/lib
prepend-path CMAKE_PREFIX_PATH $prefix
prepend-path PKG_CONFIG_PATH   $prefix/lib/pkgconfig
prepend-path MANPATH           $prefix/share/man
setenv       TESSERA_ROOT      $prefix
