# Debian packages unpacked below the build folder instead of installed; to be sourced after common.sh, not run.

# Unpacks the .deb files of a folder (scripts/offline-packages) and lets compilers, CMake and MPI find what was in them.
use_packages() {  # FOLDER
  local prefix=$build/packages deb usr library
  have dpkg-deb || die "unpacking packages needs dpkg-deb"
  if [[ ! -e $prefix/.complete ]]; then
    mkdir -p "$prefix"
    for deb in "$1"/*.deb; do dpkg-deb -x "$deb" "$prefix"; done
    touch "$prefix/.complete"
  fi
  usr=$prefix/usr library=$prefix/usr/lib/$(gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)
  # Installed, these names would be links that update-alternatives makes.
  for name in mpicc mpicxx mpirun mpiexec h5pcc; do ln -sf "$name.openmpi" "$usr/bin/$name"; done
  sed -i "s|^prefix=.*|prefix=\"$usr\"|" "$usr/bin/h5pcc.openmpi"
  export PATH=$usr/bin:$PATH MPIEXEC=$usr/bin/mpirun
  export OPAL_PREFIX=$usr OPAL_LIBDIR=$library/openmpi/lib OPAL_PKGLIBDIR=$library/openmpi/lib/openmpi3
  export OPAL_INCLUDEDIR=$library/openmpi/include OPAL_SYSCONFDIR=$prefix/etc/openmpi OPAL_DATADIR=$usr/share
  export PMIX_INSTALL_PREFIX=$library/pmix2 PMIX_MCA_pcompress_base_silence_warning=1
  export CMAKE_PREFIX_PATH=$usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  export CPATH=$usr/include${CPATH:+:$CPATH} LIBRARY_PATH=$library${LIBRARY_PATH:+:$LIBRARY_PATH}
  export LD_LIBRARY_PATH=$library:$library/openmpi/lib:$library/pmix2/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
}
