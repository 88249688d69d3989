// SPDX-License-Identifier: Apache-2.0
// A PETSc program that learns while it runs where its linear solver should begin:
//
//   mpirun -n 4 petsc_heat [-steps 300] [-picture heat.ppm] [any option of PETSc, as -pc_type sor]
//
// Heat spreads through a plate whose conductivity grows with temperature, below moving burners:
// implicit Euler steps on a DMDA, each a sparse linear system for conjugate gradients. They could
// begin on the parabola through the last three solutions; from the residual that this leaves around
// a point, a network guesses how far the solution is from the parabola there. It learns from every
// solution. A wrong guess costs iterations, never accuracy.
#include <math.h>
#include <petscdmda.h>
#include <petscksp.h>
#include <stdio.h>

#include "tessera/tessera.h"

#include "picture.h"

enum { kPoints = 64, kReach = 6, kRings = (kReach + 1) * (kReach + 2) / 2, kInputs = kRings + 1 };
enum { kLearnAlone = 50, kReport = 50, kLessons = 8, kGuesses = 4 };

static const char* const kConfig =
    "model: {model_type: mlp, layer_sizes: [29, 48, 1], activation: tanh,\n"
    "        normalize_inputs: true, normalize_outputs: true}\n"
    "engine: {optimizer: {type: Adam, params: {lr: 2e-3}}}\n";

// Where a solve may begin.
enum { kFromLast, kFromLine, kFromParabola, kFromNetwork };

typedef struct Plate {
  DM grid;
  Vec now, before, earlier, next, parabola, guessed;  // temperatures
  Vec right, residual, diagonal, local;
  Mat matrix;
  KSP solver;
} Plate;

typedef struct Guesser {
  tessera_runtime* runtime;
  tessera_network* network;
  double *inputs, *outputs;  // [points of this rank, kInputs], [points of this rank]
  double scale;              // of the residual
  int places[kRings];        // points in each ring
  int64_t points;
} Guesser;

static const double kTimeStep = 0.01;

static void check(tessera_code code) {
  if (code == TESSERA_OK) return;
  fprintf(stderr, "%s: %s\n", tessera_code_name(code), tessera_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static double conductivity(double temperature) {
  return 0.1 * (1 + 4 * temperature * temperature);
}

// Three burners that move on circles over a plate that is periodic, each with a flame that flares.
static double burner(double x, double y, double time) {
  double sum = 0;
  for (int b = 0; b < 3; ++b) {
    const double angle = 6 * time * (1 + 0.3 * b) + 2.1 * b, radius = 0.2 + 0.05 * b;
    const double dx = remainder(x - 0.5 - radius * cos(angle), 1);
    const double dy = remainder(y - 0.5 - radius * sin(angle), 1);
    sum += (0.6 + 0.4 * sin(7 * time * (b + 1))) * exp(-(dx * dx + dy * dy) / (2 * 0.06 * 0.06));
  }
  return 16 * sum - 0.65;  // about as much as it loses
}

static PetscErrorCode plate_create(Plate* plate) {
  PetscFunctionBeginUser;
  PetscCall(DMDACreate2d(PETSC_COMM_WORLD, DM_BOUNDARY_PERIODIC, DM_BOUNDARY_PERIODIC,
                         DMDA_STENCIL_BOX, kPoints, kPoints, PETSC_DECIDE, PETSC_DECIDE, 1, kReach,
                         NULL, NULL, &plate->grid));
  PetscCall(DMSetFromOptions(plate->grid));
  PetscCall(DMSetUp(plate->grid));
  PetscCall(DMSetMatrixPreallocateOnly(plate->grid, PETSC_TRUE));
  PetscCall(DMCreateMatrix(plate->grid, &plate->matrix));
  for (Vec* v = &plate->now; v <= &plate->diagonal; ++v)
    PetscCall(DMCreateGlobalVector(plate->grid, v));
  PetscCall(DMCreateLocalVector(plate->grid, &plate->local));
  PetscCall(KSPCreate(PETSC_COMM_WORLD, &plate->solver));
  PetscCall(KSPSetType(plate->solver, KSPCG));
  PC preconditioner;
  PetscCall(KSPGetPC(plate->solver, &preconditioner));
  PetscCall(PCSetType(preconditioner, PCJACOBI));
  PetscCall(KSPSetTolerances(plate->solver, 1e-4, PETSC_DEFAULT, PETSC_DEFAULT, PETSC_DEFAULT));
  PetscCall(KSPSetInitialGuessNonzero(plate->solver, PETSC_TRUE));
  PetscCall(KSPSetFromOptions(plate->solver));
  PetscFunctionReturn(0);
}

static PetscErrorCode plate_destroy(Plate* plate) {
  PetscFunctionBeginUser;
  PetscCall(KSPDestroy(&plate->solver));
  PetscCall(MatDestroy(&plate->matrix));
  for (Vec* v = &plate->now; v <= &plate->local; ++v) PetscCall(VecDestroy(v));
  PetscCall(DMDestroy(&plate->grid));
  PetscFunctionReturn(0);
}

// The implicit step from `now`: the matrix, with conductivities as they are now, and the right-hand
// side.
static PetscErrorCode assemble(Plate* plate, int step) {
  PetscFunctionBeginUser;
  DMDALocalInfo info;
  PetscScalar **u, **b;
  PetscCall(DMDAGetLocalInfo(plate->grid, &info));
  PetscCall(DMGlobalToLocal(plate->grid, plate->now, INSERT_VALUES, plate->local));
  PetscCall(DMDAVecGetArrayRead(plate->grid, plate->local, &u));
  PetscCall(DMDAVecGetArray(plate->grid, plate->right, &b));
  const double scale = kTimeStep * kPoints * kPoints;
  const int di[] = {-1, 1, 0, 0}, dj[] = {0, 0, -1, 1};
  for (PetscInt j = info.ys; j < info.ys + info.ym; ++j)
    for (PetscInt i = info.xs; i < info.xs + info.xm; ++i) {
      const MatStencil row = {.i = i, .j = j};
      MatStencil columns[5] = {row};
      PetscScalar values[5] = {1};
      for (int n = 0; n < 4; ++n) {
        const double k = 0.5 * (conductivity(u[j][i]) + conductivity(u[j + dj[n]][i + di[n]]));
        columns[n + 1] = (MatStencil){.i = i + di[n], .j = j + dj[n]};
        values[n + 1] = -scale * k;
        values[0] += scale * k;
      }
      PetscCall(MatSetValuesStencil(plate->matrix, 1, &row, 5, columns, values, INSERT_VALUES));
      b[j][i] = u[j][i] + kTimeStep * burner((i + 0.5) / kPoints, (j + 0.5) / kPoints,
                                             (step + 1) * kTimeStep);
    }
  PetscCall(DMDAVecRestoreArray(plate->grid, plate->right, &b));
  PetscCall(DMDAVecRestoreArrayRead(plate->grid, plate->local, &u));
  PetscCall(MatAssemblyBegin(plate->matrix, MAT_FINAL_ASSEMBLY));
  PetscCall(MatAssemblyEnd(plate->matrix, MAT_FINAL_ASSEMBLY));
  PetscCall(KSPSetOperators(plate->solver, plate->matrix, plate->matrix));
  PetscFunctionReturn(0);
}

// Solves from what `next` holds.
static PetscErrorCode solve(Plate* plate, double* iterations) {
  PetscFunctionBeginUser;
  KSPConvergedReason reason;
  PetscInt count = 0;
  PetscCall(KSPSolve(plate->solver, plate->right, plate->next));
  PetscCall(KSPGetConvergedReason(plate->solver, &reason));
  PetscCheck(reason > 0, PETSC_COMM_WORLD, PETSC_ERR_CONV_FAILED, "no solution: %s",
             KSPConvergedReasons[reason]);
  PetscCall(KSPGetIterationNumber(plate->solver, &count));
  *iterations += count;
  PetscFunctionReturn(0);
}

static tessera_array inputs_of(Guesser* guesser) {
  return (tessera_array){.data = guesser->inputs,
                         .dtype = TESSERA_FP64,
                         .rank = 2,
                         .dims = {guesser->points, kInputs}};
}

static tessera_array outputs_of(Guesser* guesser) {
  return (tessera_array){
      .data = guesser->outputs, .dtype = TESSERA_FP64, .rank = 1, .dims = {guesser->points}};
}

// The same for the eight places that symmetry makes equal.
static int ring(int a, int b) {
  const int far = PetscMax(abs(a), abs(b)), near = PetscMin(abs(a), abs(b));
  return far * (far + 1) / 2 + near;
}

static PetscErrorCode guesser_create(Plate* plate, Guesser* guesser) {
  PetscFunctionBeginUser;
  DMDALocalInfo info;
  PetscCall(DMDAGetLocalInfo(plate->grid, &info));
  guesser->points = (int64_t)info.xm * info.ym;
  PetscCall(PetscMalloc2(guesser->points * kInputs, &guesser->inputs, guesser->points,
                         &guesser->outputs));
  for (int b = -kReach; b <= kReach; ++b)
    for (int a = -kReach; a <= kReach; ++a) ++guesser->places[ring(a, b)];
  const tessera_network_options options = {.struct_size = sizeof options, .config = kConfig};
  check(tessera_runtime_create(PETSC_COMM_WORLD, NULL, &guesser->runtime));
  check(tessera_network_create(guesser->runtime, &options, &guesser->network));
  PetscFunctionReturn(0);
}

static PetscErrorCode guesser_destroy(Guesser* guesser) {
  PetscFunctionBeginUser;
  check(tessera_network_destroy(&guesser->network));
  check(tessera_runtime_destroy(&guesser->runtime));
  PetscCall(PetscFree2(guesser->inputs, guesser->outputs));
  PetscFunctionReturn(0);
}

// The residual of the parabola, divided by the diagonal and by its largest value.
static PetscErrorCode find_residual(Plate* plate, Guesser* guesser) {
  PetscFunctionBeginUser;
  PetscCall(VecCopy(plate->now, plate->parabola));
  PetscCall(VecAXPBYPCZ(plate->parabola, 1, -3, 3, plate->earlier, plate->before));  // 3 now - …
  PetscCall(MatMult(plate->matrix, plate->parabola, plate->residual));
  PetscCall(VecAYPX(plate->residual, -1, plate->right));
  PetscCall(MatGetDiagonal(plate->matrix, plate->diagonal));
  PetscCall(VecPointwiseDivide(plate->residual, plate->residual, plate->diagonal));
  PetscCall(VecNorm(plate->residual, NORM_INFINITY, &guesser->scale));
  PetscCall(VecScale(plate->residual, 1 / guesser->scale));
  PetscFunctionReturn(0);
}

// Of each point: means of the residual over the rings around it, each as the difference to the one
// inside, so that they tell apart; and the temperature, which says how well heat is conducted.
static PetscErrorCode gather_inputs(Plate* plate, Guesser* guesser) {
  PetscFunctionBeginUser;
  DMDALocalInfo info;
  PetscScalar **r, **u;
  PetscCall(DMDAGetLocalInfo(plate->grid, &info));
  PetscCall(DMGlobalToLocal(plate->grid, plate->residual, INSERT_VALUES, plate->local));
  PetscCall(DMDAVecGetArrayRead(plate->grid, plate->local, &r));
  PetscCall(DMDAVecGetArrayRead(plate->grid, plate->now, &u));
  double* input = guesser->inputs;
  for (PetscInt j = info.ys; j < info.ys + info.ym; ++j)
    for (PetscInt i = info.xs; i < info.xs + info.xm; ++i, input += kInputs) {
      for (int k = 0; k < kRings; ++k) input[k] = 0;
      for (int b = -kReach; b <= kReach; ++b)
        for (int a = -kReach; a <= kReach; ++a) input[ring(a, b)] += r[j + b][i + a];
      for (int k = 0; k < kRings; ++k) input[k] /= guesser->places[k];
      for (int k = kRings - 1; k > 0; --k) input[k] -= input[k - 1];
      input[kRings] = u[j][i];
    }
  PetscCall(DMDAVecRestoreArrayRead(plate->grid, plate->now, &u));
  PetscCall(DMDAVecRestoreArrayRead(plate->grid, plate->local, &r));
  PetscFunctionReturn(0);
}

// next = parabola + what the network says.
static PetscErrorCode guess(Plate* plate, Guesser* guesser) {
  PetscFunctionBeginUser;
  const tessera_array inputs = inputs_of(guesser), outputs = outputs_of(guesser);
  check(tessera_network_predict(guesser->network, &inputs, &outputs));
  PetscScalar* next;
  PetscCall(VecCopy(plate->parabola, plate->next));
  PetscCall(VecGetArray(plate->next, &next));
  for (int64_t p = 0; p < guesser->points; ++p) next[p] += guesser->scale * guesser->outputs[p];
  PetscCall(VecRestoreArray(plate->next, &next));
  PetscFunctionReturn(0);
}

static PetscErrorCode learn(Plate* plate, Guesser* guesser, PetscBool observe) {
  PetscFunctionBeginUser;
  const PetscScalar *next, *parabola;
  PetscCall(VecGetArrayRead(plate->next, &next));
  PetscCall(VecGetArrayRead(plate->parabola, &parabola));
  for (int64_t p = 0; p < guesser->points; ++p)
    guesser->outputs[p] = (next[p] - parabola[p]) / guesser->scale;
  PetscCall(VecRestoreArrayRead(plate->parabola, &parabola));
  PetscCall(VecRestoreArrayRead(plate->next, &next));
  const tessera_array inputs = inputs_of(guesser), targets = outputs_of(guesser);
  if (observe) check(tessera_network_observe(guesser->network, &inputs, &targets));
  for (int again = 0; again < kLessons; ++again)
    check(tessera_network_train_step(guesser->network, &inputs, &targets, NULL));
  PetscFunctionReturn(0);
}

// Solves the step from each guess; the simulation goes on from the last solution.
static PetscErrorCode take_step(Plate* plate, Guesser* guesser, int step,
                                double iterations[kGuesses]) {
  PetscFunctionBeginUser;
  PetscCall(assemble(plate, step));
  PetscCall(find_residual(plate, guesser));
  PetscCall(gather_inputs(plate, guesser));
  PetscCall(VecCopy(plate->now, plate->next));
  PetscCall(solve(plate, &iterations[kFromLast]));
  PetscCall(VecCopy(plate->parabola, plate->next));
  PetscCall(solve(plate, &iterations[kFromParabola]));
  PetscCall(guess(plate, guesser));
  PetscCall(VecCopy(plate->next, plate->guessed));
  PetscCall(solve(plate, &iterations[kFromNetwork]));
  PetscCall(VecCopy(plate->now, plate->next));
  PetscCall(VecAXPBY(plate->next, -1, 2, plate->before));
  PetscCall(solve(plate, &iterations[kFromLine]));
  if (step > 2) PetscCall(learn(plate, guesser, step < kLearnAlone ? PETSC_TRUE : PETSC_FALSE));
  PetscCall(VecCopy(plate->before, plate->earlier));
  PetscCall(VecCopy(plate->now, plate->before));
  PetscCall(VecCopy(plate->next, plate->now));
  PetscFunctionReturn(0);
}

// What is saved against the best guess that needs no network.
static double report(int step, const double sum[kGuesses]) {
  const double best = PetscMin(PetscMin(sum[kFromLast], sum[kFromLine]), sum[kFromParabola]);
  PetscPrintf(PETSC_COMM_WORLD, "  %4d   %13.1f   %15.1f   %10.1f   %11.1f\n", step,
              sum[kFromLast] / kReport, sum[kFromLine] / kReport, sum[kFromParabola] / kReport,
              sum[kFromNetwork] / kReport);
  return 1 - sum[kFromNetwork] / best;
}

int main(int argc, char** argv) {
  PetscFunctionBeginUser;
  PetscCall(PetscInitialize(&argc, &argv, NULL, "Learns where conjugate gradients should begin\n"));
  PetscInt steps = 300;
  char picture[PETSC_MAX_PATH_LEN] = "heat.ppm";
  PetscCall(PetscOptionsGetInt(NULL, NULL, "-steps", &steps, NULL));
  PetscCall(PetscOptionsGetString(NULL, NULL, "-picture", picture, sizeof picture, NULL));
  Plate plate = {0};
  Guesser guesser = {0};
  PetscCall(plate_create(&plate));
  PetscCall(guesser_create(&plate, &guesser));

  PetscCall(PetscPrintf(PETSC_COMM_WORLD,
                        "iterations of a step, means of %d; beginning from\n"
                        "  step   the last step   a straight line   a parabola   the network\n",
                        kReport));
  double sum[kGuesses] = {0}, saved = 0;
  for (int step = 0; step < steps; ++step) {
    PetscCall(take_step(&plate, &guesser, step, sum));
    if ((step + 1) % kReport != 0) continue;
    saved = report(step + 1, sum);
    for (int g = 0; g < kGuesses; ++g) sum[g] = 0;
  }
  PetscCall(
      PetscPrintf(PETSC_COMM_WORLD, "%.0f %% fewer than the best of the others\n", 100 * saved));
  // The errors of both guesses of the last step, beside its solution.
  PetscCall(VecAXPY(plate.guessed, -1, plate.now));
  PetscCall(VecAXPY(plate.parabola, -1, plate.now));
  PetscCall(picture_write(plate.grid, picture, plate.now, plate.parabola, plate.guessed));

  check(tessera_network_save(guesser.network, "heat.h5", NULL));
  PetscCall(guesser_destroy(&guesser));
  PetscCall(plate_destroy(&plate));
  PetscCall(PetscFinalize());
  return saved > 0.25 ? 0 : 1;
}
