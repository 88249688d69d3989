! SPDX-License-Identifier: Apache-2.0
! The solver of solver.c in Fortran: it trains a surrogate of its expensive reaction rate while it runs.
program solver
  use, intrinsic :: iso_fortran_env, only: real64
  use mpi
  use tessera
  implicit none
  integer, parameter :: cells = 256, steps = 800
  type(tessera_runtime) :: runtime
  type(tessera_network) :: surrogate
  real(real64) :: state(2, cells), rate(cells), predicted(cells), loss, x, t
  integer :: rank, step, i, ierr

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call runtime%create(MPI_COMM_WORLD)  ! or a type(MPI_Comm) of mpi_f08
  call surrogate%create(runtime, &
    "model: {model_type: mlp, layer_sizes: [2, 32, 32, 1], activation: tanh," // &
    "        normalize_inputs: true, normalize_outputs: true}" // new_line("a") // &
    "engine: {optimizer: {type: Adam, params: {lr: 5e-3}}}")

  do step = 0, steps - 1
    do i = 1, cells
      x = (i - 0.5_real64) / cells
      t = 0.01_real64 * step
      state(1, i) = 0.5_real64 + 0.5_real64 * sin(6 * x + t + rank)
      state(2, i) = 700 + 300 * cos(9 * x - 2 * t)
      rate(i) = reaction(state(1, i), state(2, i))
    end do
    if (mod(step, 100) == 0) call surrogate%observe(state, rate)
    call surrogate%train_step(state, rate, loss)
    if (rank == 0 .and. mod(step, 100) == 0) print "(a, i4, a, f9.6)", "step", step, "  loss", loss
  end do

  call surrogate%predict(state, predicted)
  if (rank == 0) print "(a, f8.5, a)", "largest error", maxval(abs(predicted - rate)), " of rates up to 0.09"
  call surrogate%save("surrogate.h5", client_state='{"time": 8.0}')
  call surrogate%destroy()
  call runtime%destroy()
  call MPI_Finalize(ierr)
  if (maxval(abs(predicted - rate)) > 0.01) error stop "the surrogate is not near the rates"

contains

  !> What the surrogate shall replace: the rate at a concentration and a temperature.
  real(real64) function reaction(u, kelvin)
    real(real64), intent(in) :: u, kelvin
    reaction = u * (1 - u) * exp(-1000 / kelvin)
  end function

end program
