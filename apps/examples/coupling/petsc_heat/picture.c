// SPDX-License-Identifier: Apache-2.0
#include "picture.h"

#include <math.h>
#include <stdio.h>

enum { kZoom = 4 };

// All of a field on rank 0, row by row; elsewhere an empty one.
static PetscErrorCode on_first_rank(DM grid, Vec field, Vec* whole) {
  PetscFunctionBeginUser;
  Vec natural;
  VecScatter scatter;
  PetscCall(DMDACreateNaturalVector(grid, &natural));
  PetscCall(DMDAGlobalToNaturalBegin(grid, field, INSERT_VALUES, natural));
  PetscCall(DMDAGlobalToNaturalEnd(grid, field, INSERT_VALUES, natural));
  PetscCall(VecScatterCreateToZero(natural, &scatter, whole));
  PetscCall(VecScatterBegin(scatter, natural, *whole, INSERT_VALUES, SCATTER_FORWARD));
  PetscCall(VecScatterEnd(scatter, natural, *whole, INSERT_VALUES, SCATTER_FORWARD));
  PetscCall(VecScatterDestroy(&scatter));
  PetscCall(VecDestroy(&natural));
  PetscFunctionReturn(0);
}

// From blue at -1 over white to red at 1.
static void put_color(FILE* file, double value) {
  const double v = fmax(-1, fmin(1, value)), fade = 255 * (1 - fabs(v));
  fputc(v > 0 ? 255 : (int)fade, file);
  fputc((int)fade, file);
  fputc(v < 0 ? 255 : (int)fade, file);
}

static void write_fields(FILE* file, PetscInt nx, PetscInt ny, const PetscScalar* fields[3],
                         const double scales[3]) {
  fprintf(file, "P6\n%d %d\n255\n", (int)(3 * nx * kZoom), (int)(ny * kZoom));
  for (PetscInt j = 0; j < ny * kZoom; ++j)
    for (int f = 0; f < 3; ++f)
      for (PetscInt i = 0; i < nx * kZoom; ++i)
        put_color(file, fields[f][(j / kZoom) * nx + i / kZoom] / scales[f]);
}

PetscErrorCode picture_write(DM grid, const char* path, Vec field, Vec error, Vec other_error) {
  PetscFunctionBeginUser;
  const Vec vectors[3] = {field, error, other_error};
  Vec whole[3];
  const PetscScalar* fields[3];
  double scales[3];
  PetscInt nx, ny;
  PetscMPIInt rank;
  PetscCall(DMDAGetInfo(grid, NULL, &nx, &ny, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                        NULL));
  PetscCallMPI(MPI_Comm_rank(PetscObjectComm((PetscObject)grid), &rank));
  for (int f = 0; f < 3; ++f) {
    PetscCall(VecNorm(vectors[f], NORM_INFINITY, &scales[f]));
    PetscCall(on_first_rank(grid, vectors[f], &whole[f]));
    PetscCall(VecGetArrayRead(whole[f], &fields[f]));
  }
  scales[1] = scales[2] = PetscMax(scales[1], scales[2]);
  if (rank == 0) {
    FILE* file = fopen(path, "wb");
    PetscCheck(file != NULL, PETSC_COMM_SELF, PETSC_ERR_FILE_OPEN, "cannot write %s", path);
    write_fields(file, nx, ny, fields, scales);
    fclose(file);
  }
  for (int f = 0; f < 3; ++f) {
    PetscCall(VecRestoreArrayRead(whole[f], &fields[f]));
    PetscCall(VecDestroy(&whole[f]));
  }
  PetscFunctionReturn(0);
}
