// SPDX-License-Identifier: Apache-2.0
// Three fields of a DMDA side by side as a PPM file.
#pragma once

#include <petscdmda.h>

// The first field by its own range; the two others, errors, by the largest of both. Collective.
PetscErrorCode picture_write(DM grid, const char* path, Vec field, Vec error, Vec other_error);
