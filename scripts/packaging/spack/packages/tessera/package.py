# SPDX-License-Identifier: Apache-2.0
# Spack recipe. From a clone of Tessera:
#     spack repo add scripts/packaging/spack
#     spack dev-build tessera@main            # or: git below set to where releases are, then spack install tessera

from spack.package import *


class Tessera(CMakePackage, CudaPackage):
    """MPI-native training of transformers with ZeRO, as a program and a library in C++, C and Fortran."""

    git = "https://example.org/tessera.git"  # where you keep it

    license("Apache-2.0")

    version("main", branch="main")

    variant("shared", default=True, description="Shared libraries")
    variant("fortran", default=True, description="The Fortran module")
    variant("nccl", default=True, when="+cuda", description="NCCL between GPUs")
    variant("cudnn", default=True, when="+cuda", description="Attention of cuDNN")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("fortran", type="build", when="+fortran")

    depends_on("cmake@3.22:", type="build")
    depends_on("mpi@3.1:")
    depends_on("hdf5@1.10:+mpi")
    depends_on("yaml-cpp@0.6:")
    depends_on("onednn@2.6: cpu_runtime=omp")
    depends_on("highway@1:")
    depends_on("fmt@8:")
    depends_on("cli11@2.1:", type="build")
    depends_on("nlohmann-json@3.10:", type="build")
    depends_on("googletest@1.11:", type="test")
    depends_on("cuda@12:", when="+cuda")
    depends_on("nccl@2.19:", when="+nccl")
    depends_on("cudnn@9.18:", when="+cudnn")
    for architecture in CudaPackage.cuda_arch_values:
        depends_on(f"nccl cuda_arch={architecture}", when=f"+nccl cuda_arch={architecture}")

    conflicts("cuda_arch=none", when="+cuda", msg="say for which GPUs: cuda_arch=80,90")
    conflicts("%gcc@:10", msg="C++20 as GCC 11 knows it")

    def cmake_args(self):
        def switch(feature):
            return "on" if self.spec.satisfies("+" + feature) else "off"

        arguments = [
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
            self.define("TESSERA_ENABLE_TESTS", self.run_tests),
            self.define("TESSERA_ENABLE_BENCHMARKS", False),
            self.define("TESSERA_ENABLE_CUDA", switch("cuda")),
            self.define("TESSERA_ENABLE_FORTRAN", switch("fortran")),
            self.define("TESSERA_ENABLE_NCCL", switch("nccl")),
            self.define("TESSERA_ENABLE_CUDNN", switch("cudnn")),
        ]
        if self.spec.satisfies("+cuda"):
            arguments.append(
                self.define("CMAKE_CUDA_ARCHITECTURES", self.spec.variants["cuda_arch"].value)
            )
        return arguments

    def test_program(self):
        """The installed program says what this machine can do."""
        tessera = which(self.prefix.bin.tessera)
        assert "threads" in tessera("env", output=str.split, error=str.split)
