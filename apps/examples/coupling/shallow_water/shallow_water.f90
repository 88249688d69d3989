! SPDX-License-Identifier: Apache-2.0
! The simulation of main.cpp in Fortran: mpirun -n 4 shallow_water_in_fortran. Called again, it goes on learning.

!> The shallow water equations on a periodic square, rows divided over ranks; see shallow_water.hpp.
module shallow_water
  use, intrinsic :: iso_fortran_env, only: real64
  use mpi
  implicit none

  type :: grid
    integer :: cells, first_row, rows
    real(real64), allocatable :: at(:, :, :)  !< h, h u, h v; with two cells more on each side
  contains
    procedure :: exchange, fluxes, advance, mass
  end type

  !> Fluxes along a face's normal first: x(:, i, j) left of cell i, y(:, i, j) below row j.
  type :: faces
    real(real64), allocatable :: x(:, :, :), y(:, :, :)
  end type

  integer, parameter :: swapped(3) = [1, 3, 2]

contains

  function new_grid(cells, first_row, rows) result(water)
    integer, intent(in) :: cells, first_row, rows
    type(grid) :: water
    water = grid(cells, first_row, rows)
    allocate(water%at(3, -1:cells + 2, -1:rows + 2), source=0.0_real64)
    water%at(1, :, :) = 1
  end function

  function new_faces(cells, rows) result(face)
    integer, intent(in) :: cells, rows
    type(faces) :: face
    allocate(face%x(3, cells, rows), face%y(3, cells, rows + 1), source=0.0_real64)
  end function

  !> Copies what lies beyond the edges from where it belongs.
  subroutine exchange(self)
    class(grid), intent(inout) :: self
    integer :: rank, ranks, below, above, count, ierr
    self%at(:, self%cells + 1:, :) = self%at(:, 1:2, :)
    self%at(:, -1:0, :) = self%at(:, self%cells - 1:self%cells, :)
    call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
    call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
    below = modulo(rank - 1, ranks)
    above = modulo(rank + 1, ranks)
    count = 2 * 3 * (self%cells + 4)
    call MPI_Sendrecv(self%at(1, -1, self%rows - 1), count, MPI_DOUBLE_PRECISION, above, 0, &
      self%at(1, -1, -1), count, MPI_DOUBLE_PRECISION, below, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
    call MPI_Sendrecv(self%at(1, -1, 1), count, MPI_DOUBLE_PRECISION, below, 1, &
      self%at(1, -1, self%rows + 1), count, MPI_DOUBLE_PRECISION, above, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE, ierr)
  end subroutine

  !> Rusanov's fluxes, after exchange().
  function fluxes(self) result(flux)
    class(grid), intent(in) :: self
    type(faces) :: flux
    integer :: i, j
    flux = new_faces(self%cells, self%rows)
    do j = 1, self%rows + 1
      do i = 1, self%cells
        if (j <= self%rows) flux%x(:, i, j) = rusanov(self%at(:, i - 1, j), self%at(:, i, j))
        flux%y(:, i, j) = rusanov(self%at(swapped, i, j - 1), self%at(swapped, i, j))
      end do
    end do
  end function

  pure function rusanov(left, right) result(flux)
    real(real64), intent(in) :: left(3), right(3)
    real(real64) :: flux(3), wave
    wave = max(abs(left(2) / left(1)) + sqrt(left(1)), abs(right(2) / right(1)) + sqrt(right(1)))
    flux = 0.5_real64 * (physical_flux(left) + physical_flux(right)) - 0.5_real64 * wave * (right - left)
  end function

  pure function physical_flux(water) result(flux)
    real(real64), intent(in) :: water(3)
    real(real64) :: flux(3)
    flux = [water(2), water(2)**2 / water(1) + 0.5_real64 * water(1)**2, water(3) * water(2) / water(1)]
  end function

  subroutine advance(self, time_step, flux)
    class(grid), intent(inout) :: self
    real(real64), intent(in) :: time_step
    type(faces), intent(in) :: flux
    integer :: i, j, right
    do j = 1, self%rows
      do i = 1, self%cells
        right = modulo(i, self%cells) + 1
        self%at(:, i, j) = self%at(:, i, j) - time_step * self%cells * (flux%x(:, right, j) - flux%x(:, i, j) &
          + flux%y(swapped, i, j + 1) - flux%y(swapped, i, j))
      end do
    end do
  end subroutine

  real(real64) function mass(self)
    class(grid), intent(in) :: self
    mass = sum_over_ranks(sum(self%at(1, 1:self%cells, 1:self%rows))) / self%cells**2
  end function

  real(real64) function sum_over_ranks(value)
    real(real64), intent(in) :: value
    integer :: ierr
    call MPI_Allreduce(value, sum_over_ranks, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, ierr)
  end function

  !> The means of a solution over squares of cells.
  subroutine coarsen(fine, coarse)
    type(grid), intent(in) :: fine
    type(grid), intent(inout) :: coarse
    integer :: i, j, k, r
    r = fine%cells / coarse%cells
    do j = 1, coarse%rows
      do i = 1, coarse%cells
        do k = 1, 3
          coarse%at(k, i, j) = sum(fine%at(k, r * (i - 1) + 1:r * i, r * (j - 1) + 1:r * j)) / r**2
        end do
      end do
    end do
  end subroutine

end module

program main
  use shallow_water
  use tessera
  implicit none
  integer, parameter :: cells = 48, ratio = 4, steps = 80, episodes = 4
  real(real64), parameter :: time_step = 0.2_real64 / cells
  type(tessera_runtime) :: runtime
  type(tessera_network) :: closure
  type(grid) :: fine, truth, alone, helped
  type(faces) :: flux
  character(*), parameter :: checkpoint = "shallow_water.h5", picture = "shallow_water.ppm"
  real(real64) :: loss, water, errors(2)
  integer :: rank, ranks, first, rows, episode, done, step, ierr
  logical :: resumed

  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks, ierr)
  first = cells * rank / ranks
  rows = cells * (rank + 1) / ranks - first
  call runtime%create(MPI_COMM_WORLD)
  call closure%create(runtime, &
    "model: {model_type: mlp, layer_sizes: [12, 48, 48, 3], activation: tanh," // &
    "        normalize_inputs: true, normalize_outputs: true}" // new_line("a") // &
    "engine: {optimizer: {type: Adam, params: {lr: 2e-3}}}")

  inquire(file=checkpoint, exist=resumed)
  if (resumed) call closure%load(checkpoint)
  done = int(closure%steps()) / steps
  do episode = merge(done + 1, 0, resumed), done + episodes  ! number 0 shows the scales
    loss = 0
    fine = poured(real(episode + 1, real64))
    do step = 1, steps
      call learn_from_a_step(fine, episode > 0, loss)
    end do
    if (rank == 0 .and. episode > 0) print "(a, i4, a, f8.5)", "episode", episode, "  loss", loss / steps
  end do
  call closure%save(checkpoint)

  fine = poured(0.5_real64)  ! which was not seen before
  truth = new_grid(cells, first, rows)
  call coarsen(fine, truth)
  alone = truth
  helped = truth
  water = helped%mass()
  if (rank == 0) print "(/, a)", "   time   error alone   with the network"
  do step = 1, steps
    flux = mean_fluxes(fine)
    call alone%exchange()
    call alone%advance(time_step, alone%fluxes())
    call helped%exchange()
    flux = helped%fluxes()
    call correct(helped, flux)
    call helped%advance(time_step, flux)
    if (modulo(step, 10) /= 0) cycle
    call coarsen(fine, truth)
    errors = [distance(alone, truth), distance(helped, truth)]
    if (rank == 0) print "(f7.3, f14.6, f19.6)", step * time_step, errors
  end do
  water = abs(helped%mass() - water)
  if (rank == 0) print "(a, f5.2, a, es8.1)", "error x", errors(2) / errors(1), "; water lost:", water
  call write_picture([truth, alone, helped])
  if (rank == 0) print "(2a)", picture, ": fine grid | coarse grid | coarse grid with the network"
  call closure%destroy()
  call runtime%destroy()
  call MPI_Finalize(ierr)
  if (errors(2) > 0.5_real64 * errors(1) .or. water > 1e-10_real64) error stop "the network does not help"

contains

  !> Humps of water at rest, whose places follow from `seed`.
  function poured(seed) result(water)
    real(real64), intent(in) :: seed
    type(grid) :: water
    real(real64) :: x, y, height, size, dx, dy, width
    integer :: hump, i, j
    water = new_grid(ratio * cells, ratio * first, ratio * rows)
    width = 1.0_real64 / water%cells
    do hump = 1, 4
      x = fraction_of(12.9898_real64 * seed + 78.233_real64 * hump)
      y = fraction_of(39.3467_real64 * seed + 11.135_real64 * hump)
      height = 0.1_real64 + 0.4_real64 * fraction_of(73.156_real64 * seed + 52.235_real64 * hump)
      size = 0.04_real64 + 0.06_real64 * fraction_of(27.619_real64 * seed + 90.424_real64 * hump)
      do j = 1, water%rows
        do i = 1, water%cells
          dx = (i - 0.5_real64) * width - x
          dy = (water%first_row + j - 0.5_real64) * width - y
          dx = dx - anint(dx)
          dy = dy - anint(dy)
          water%at(1, i, j) = water%at(1, i, j) + height * exp(-(dx**2 + dy**2) / (2 * size**2))
        end do
      end do
    end do
  end function

  real(real64) function fraction_of(angle)
    real(real64), intent(in) :: angle
    fraction_of = modulo(43758.5453_real64 * sin(angle), 1.0_real64)
  end function

  !> A coarse time step on the fine grid; the mean fluxes through the faces of the coarse one.
  function mean_fluxes(water) result(mean)
    type(grid), intent(inout) :: water
    type(faces) :: mean, flux
    integer :: part, i, j, k, n
    mean = new_faces(cells, rows)
    do part = 1, ratio
      call water%exchange()
      flux = water%fluxes()
      do j = 1, rows + 1
        do i = 1, cells
          do n = 1, ratio
            do k = 1, 3
              if (j <= rows) mean%x(k, i, j) = mean%x(k, i, j) &
                + flux%x(k, ratio * (i - 1) + 1, ratio * (j - 1) + n) / ratio**2
              mean%y(k, i, j) = mean%y(k, i, j) + flux%y(k, ratio * (i - 1) + n, ratio * (j - 1) + 1) / ratio**2
            end do
          end do
        end do
      end do
      call water%advance(time_step / ratio, flux)
    end do
  end function

  !> Advances the fine grid and learns from what a coarse one would have missed.
  subroutine learn_from_a_step(water, train, loss)
    type(grid), intent(inout) :: water
    logical, intent(in) :: train
    real(real64), intent(inout) :: loss
    type(grid) :: coarse
    type(faces) :: wanted, plain
    real(real64), allocatable :: inputs(:, :), targets(:, :)
    real(real64) :: one
    integer :: own
    coarse = new_grid(cells, first, rows)
    call coarsen(water, coarse)
    call coarse%exchange()
    wanted = mean_fluxes(water)
    plain = coarse%fluxes()
    own = cells * rows  ! the faces on the upper edge are the next rank's
    inputs = surroundings(coarse)
    targets = reshape([wanted%x - plain%x, wanted%y(:, :, :rows) - plain%y(:, :, :rows)], [3, 2 * own])
    if (.not. train) then
      call closure%observe(inputs(:, :2 * own), targets)
      return
    end if
    call closure%train_step(inputs(:, :2 * own), targets, one)
    loss = loss + one
  end subroutine

  !> The four cells around each face, of the x faces and then of the y faces.
  function surroundings(water) result(inputs)
    type(grid), intent(in) :: water
    real(real64), allocatable :: inputs(:, :)
    integer :: i, j, x, y
    allocate(inputs(12, cells * (2 * rows + 1)))
    do j = 1, rows + 1
      do i = 1, cells
        x = (j - 1) * cells + i
        y = cells * rows + x
        if (j <= rows) inputs(:, x) = reshape(water%at(:, i - 2:i + 1, j), [12])
        inputs(:, y) = reshape(water%at(swapped, i, j - 2:j + 1), [12])
      end do
    end do
  end function

  subroutine correct(water, flux)
    type(grid), intent(in) :: water
    type(faces), intent(inout) :: flux
    real(real64) :: correction(3, cells * (2 * rows + 1))
    call closure%predict(surroundings(water), correction)
    flux%x = flux%x + reshape(correction(:, :cells * rows), shape(flux%x))
    flux%y = flux%y + reshape(correction(:, cells * rows + 1:), shape(flux%y))
  end subroutine

  !> Mean distance of the depths.
  real(real64) function distance(a, b)
    type(grid), intent(in) :: a, b
    distance = sum_over_ranks(sum(abs(a%at(1, 1:cells, 1:rows) - b%at(1, 1:cells, 1:rows)))) / cells**2
  end function

  !> Depths of the grids side by side.
  subroutine write_picture(grids)
    type(grid), intent(in) :: grids(:)
    integer, parameter :: pixels = 6  ! of a cell's edge
    real(real64) :: mine(cells, rows), depth(cells, cells, size(grids))
    integer :: begins(0:ranks), file, row, g, i, j
    character(20) :: edges
    begins = [(cells * (cells * i / ranks), i = 0, ranks)]
    do g = 1, size(grids)
      mine = grids(g)%at(1, 1:cells, 1:rows)
      call MPI_Gatherv(mine, size(mine), MPI_DOUBLE_PRECISION, depth(1, 1, g), begins(1:) - begins(:ranks - 1), begins, &
        MPI_DOUBLE_PRECISION, 0, MPI_COMM_WORLD, ierr)
    end do
    if (rank /= 0) return
    write(edges, "(i0, 1x, i0)") cells * pixels * size(grids), cells * pixels
    open(newunit=file, file=picture, access="stream", status="replace", action="write")
    write(file) "P6" // new_line("a") // trim(edges) // new_line("a") // "255" // new_line("a")
    do j = 1, cells
      do row = 1, pixels
        do g = 1, size(grids)
          write(file) (repeat(colour(depth(i, j, g)), pixels), i = 1, cells)
        end do
      end do
    end do
    close(file)
  end subroutine

  !> Red, green and blue: shallow water is blue, deep water red.
  pure character(3) function colour(depth)
    real(real64), intent(in) :: depth
    real(real64) :: place, parts(3)
    integer :: k
    place = (depth - 0.9_real64) / 0.35_real64
    parts = [2 * place, 1 - abs(2 * place - 1), 2 - 2 * place]
    do k = 1, 3
      colour(k:k) = char(int(255 * max(0.0_real64, min(1.0_real64, parts(k)))))
    end do
  end function

end program
