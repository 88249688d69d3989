-- SPDX-License-Identifier: Apache-2.0
-- Module file for Lmod: copy to <module path>/tessera/0.1.0.lua and set the two lines below.
local prefix = "/opt/tessera/0.1.0"         -- cmake --install build --prefix <prefix>
local needs = {"openmpi", "hdf5"}           -- the modules that were loaded when it was built, MPI first

whatis("Name: Tessera")
whatis("Description: MPI-native training of transformers with ZeRO, a program and a library")
help([[
tessera --help; man tessera. Under Slurm: the templates in ]] .. prefix .. [[/share/tessera/slurm.
For programs of your own: find_package(Tessera), or pkg-config tessera.
]])

conflict("tessera")
for _, name in ipairs(needs) do depends_on(name) end

prepend_path("PATH", pathJoin(prefix, "bin"))
prepend_path("LD_LIBRARY_PATH", pathJoin(prefix, "lib"))
prepend_path("CMAKE_PREFIX_PATH", prefix)
prepend_path("PKG_CONFIG_PATH", pathJoin(prefix, "lib/pkgconfig"))
prepend_path("MANPATH", pathJoin(prefix, "share/man"))
setenv("TESSERA_ROOT", prefix)
