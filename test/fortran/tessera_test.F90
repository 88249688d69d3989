! SPDX-License-Identifier: Apache-2.0
! The Fortran module: networks and optimizers on arrays of several kinds, ranks and layouts, resuming, errors.
module own_functions
  use, intrinsic :: iso_c_binding
  implicit none

contains

  !> Squares of the differences to the targets that user points to.
  function squares(first, samples, outputs, values, gradients, user) bind(C) result(loss)
    integer(c_int64_t), value :: first, samples, outputs
    real(c_float), intent(in) :: values(outputs, samples)
    real(c_float), intent(inout) :: gradients(outputs, samples)
    type(c_ptr), value :: user
    real(c_double) :: loss
    real(c_double), pointer :: targets(:)
    integer(c_int64_t) :: i
    call c_f_pointer(user, targets, [first + samples])
    do i = 1, samples
      gradients(:, i) = 2 * real(values(:, i) - targets(first + i), c_float)
    end do
    loss = sum(real(gradients, c_double)**2) / 4
  end function

  !> y = w(1) + w(2) times the product of both inputs.
  subroutine product_forward(samples, inputs, outputs, parameters, x, w, y, user) bind(C)
    integer(c_int64_t), value :: samples, inputs, outputs, parameters
    real(c_float), intent(in) :: x(inputs, samples), w(parameters)
    real(c_float), intent(inout) :: y(outputs, samples)
    type(c_ptr), value :: user
    if (.not. c_associated(user)) y(1, :) = w(1) + w(2) * x(1, :) * x(2, :)
  end subroutine

  subroutine product_backward(samples, inputs, outputs, parameters, x, w, dy, dx, dw, user) bind(C)
    integer(c_int64_t), value :: samples, inputs, outputs, parameters
    real(c_float), intent(in) :: x(inputs, samples), w(parameters), dy(outputs, samples)
    real(c_float), intent(inout) :: dx(inputs, samples), dw(parameters)
    type(c_ptr), value :: user
    dx(1, :) = dy(1, :) * w(2) * x(2, :)
    dx(2, :) = dy(1, :) * w(2) * x(1, :)
    dw = [sum(dy), sum(dy(1, :) * x(1, :) * x(2, :))]
    if (c_associated(user)) dw = 0
  end subroutine

end module

program tessera_test
  use own_functions
  use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64, error_unit
  use mpi_f08
  use tessera
  implicit none

  integer :: failures = 0, rank
  character(:), allocatable :: folder
  character(256) :: argument

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call get_command_argument(1, argument)
  if (argument == "stop") call stop_with_the_text()
  if (argument == "gpu") then
    call learn_on_gpu()
  else
    folder = trim(argument)
    call learn()
    call resume()
    call save_beside_training()
    call talk_in_groups()
    call take_arrays_as_they_lie()
    call learn_with_own_functions()
    call optimize()
    call say_what_is_wrong()
  end if
  call MPI_Allreduce(MPI_IN_PLACE, failures, 1, MPI_INTEGER, MPI_SUM, MPI_COMM_WORLD)
  call MPI_Finalize()
  if (failures > 0) error stop 1

contains

  subroutine expect(condition, what)
    logical, intent(in) :: condition
    character(*), intent(in) :: what
    if (condition) return
    write (error_unit, "(3a)") what, "; last error: ", tessera_last_error()
    failures = failures + 1
  end subroutine

  function config(more) result(text)
    character(*), intent(in) :: more
    character(:), allocatable :: text
    text = "model: {model_type: mlp, layer_sizes: [2, 16, 1], activation: tanh" // more // "}" // new_line("a") // &
      "engine: {optimizer: {type: Adam, params: {lr: 0.02}}, zero_optimization: {stage: 2}}"
  end function

  ! x(features, samples), y(samples)
  subroutine make_samples(x, y)
    real(real64), intent(out) :: x(:, :), y(:)
    integer :: i
    do i = 1, size(y)
      x(1, i) = sin(real(i + 100 * rank, real64))
      x(2, i) = cos(0.37_real64 * i)
      y(i) = 100 + 20 * x(1, i) * x(2, i)
    end do
  end subroutine

  ! Everything is destroyed at the end of the procedure.
  subroutine learn()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network
    type(tessera_step) :: step
    real(real64) :: x(2, 128), y(128), predicted(128), first, loss
    integer :: i
    call make_samples(x, y)
    call runtime%create(MPI_COMM_WORLD)
    call network%create(runtime, config(", normalize_inputs: true, normalize_outputs: true"))
    call network%observe(x, y)
    call network%evaluate(x, y, first)
    do i = 1, 400
      call network%train_step(x, y, loss)
    end do
    call expect(loss < 0.05 * first, "the loss gets small")
    call network%predict(x, predicted)
    call expect(maxval(abs(predicted - y)) < 8, "predictions are near")
    call network%last_step(step)
    call expect(step%step == 400 .and. step%learning_rate == 0.02_real64, "the last step")
    call expect(network%steps() == 400, "steps")
  end subroutine

  ! Arrays on the GPU, as use_device of OpenACC and OpenMP would give them, and arrays of the host: no difference.
  subroutine learn_on_gpu()
    interface
      function gpu_copy(host, bytes) bind(C) result(device)
        import :: c_ptr, c_size_t
        type(c_ptr), value :: host
        integer(c_size_t), value :: bytes
        type(c_ptr) :: device
      end function
      subroutine gpu_fetch(host, device, bytes) bind(C)
        import :: c_ptr, c_size_t
        type(c_ptr), value :: host, device
        integer(c_size_t), value :: bytes
      end subroutine
    end interface
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network, other
    type(tessera_group) :: world
    real(real64), target :: x(2, 64), y(64), predicted(64), expected(64)
    real(real64), pointer :: x_there(:, :), y_there(:), predicted_there(:)
    type(c_ptr) :: place
    real(real64) :: loss, other_loss
    integer :: i
    call make_samples(x, y)
    predicted = 0
    place = gpu_copy(c_loc(x), c_sizeof(x))
    call c_f_pointer(place, x_there, shape(x))
    place = gpu_copy(c_loc(y), c_sizeof(y))
    call c_f_pointer(place, y_there, shape(y))
    place = gpu_copy(c_loc(predicted), c_sizeof(predicted))
    call c_f_pointer(place, predicted_there, shape(predicted))
    call runtime%create(MPI_COMM_WORLD)
    call network%create(runtime, "device: cuda" // new_line("a") // config(", normalize_outputs: true"))
    call other%create(runtime, "device: cuda" // new_line("a") // config(", normalize_outputs: true"))
    call network%observe(targets=y_there)
    call other%observe(targets=y)
    do i = 1, 3
      call network%train_step(x_there, y_there, loss)
      call other%train_step(x, y, other_loss)
      call expect(loss == other_loss, "the losses are the same")
    end do
    call network%predict(x_there(:, 64:1:-1), predicted_there(64:1:-1))
    call other%predict(x, expected)
    call gpu_fetch(c_loc(predicted), place, c_sizeof(predicted))
    call expect(all(predicted == expected), "predictions are the same")
    call runtime%world(world)
    call world%open_gpus()
    call world%broadcast(y_there, 0)
    call gpu_fetch(c_loc(predicted), c_loc(y_there), c_sizeof(predicted))
    call world%broadcast(y, 0)
    call expect(all(predicted == y), "what rank 0 had is everywhere")
  end subroutine

  ! The targets are 100 + 20 x(1) x(2): the layer's two parameters.
  subroutine learn_with_own_functions()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network, other
    type(tessera_layer) :: layer
    real(real64) :: x(2, 64), predicted(64), loss, with_loss
    real(real64), target :: y(64)
    integer :: i, code
    character(*), parameter :: text = "model: {model_type: mlp, layer_sizes: [2, 1]}" // new_line("a") // &
      "engine: {optimizer: {type: Adam, params: {lr: 0.5}}}"
    call make_samples(x, y)
    call runtime%create(MPI_COMM_WORLD)
    layer%parameters = 2
    layer%forward => product_forward
    layer%backward => product_backward
    call network%create(runtime, text, [layer])
    call other%create(runtime, text, [layer])
    do i = 1, 800
      call network%train_step(x, y, loss)
      call other%train_step_with(x, squares, with_loss, c_loc(y))
      if (i == 1) call expect(abs(with_loss - loss) < 1e-6 * loss, "the same loss")
    end do
    call network%predict(x, predicted)
    call expect(maxval(abs(predicted - y)) < 1, "the layer's parameters are found")
    call other%predict(x, predicted)
    call expect(maxval(abs(predicted - y)) < 1, "with a loss of the program's own too")
    layer%index = 2
    call network%destroy()
    call network%create(runtime, text, [layer], code)
    call expect(code == TESSERA_INVALID_ARGUMENT, "there is no second layer")
  end subroutine

  subroutine resume()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network, other
    real(real64) :: x(2, 32), y(32), expected(32), predicted(32)
    integer :: i
    call make_samples(x, y)
    call runtime%create(MPI_COMM_WORLD%MPI_VAL)  ! an integer, as older programs have it
    call network%create(runtime, config(""))
    call other%create(runtime, config(""))
    do i = 1, 10
      if (i == 6) call network%save(folder // "/fortran.h5", client_state='{"time": 2.5}')
      call network%train_step(x, y)
    end do
    call network%predict(x, expected)
    call other%load(folder // "/fortran.h5")
    call expect(other%client_state() == '{"time": 2.5}', "the client state")
    do i = 6, 10
      call other%train_step(x, y)
    end do
    call other%predict(x, predicted)
    call expect(all(predicted == expected), "the same bits after a resume")
  end subroutine

  subroutine save_beside_training()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network
    real(real64) :: x(2, 32), y(32), expected(32), predicted(32)
    integer :: i, code
    call make_samples(x, y)
    call runtime%create(MPI_COMM_WORLD)
    call network%create(runtime, config(""))
    call network%predict(x, expected)
    call network%save_async(folder // "/beside.h5", client_state='{"time": 4}')
    call expect(network%saving(), "a save is under way")
    do i = 1, 5
      call network%train_step(x, y)
    end do
    call network%finish_save()
    call expect(.not. network%saving(), "it has ended")
    call network%load(folder // "/beside.h5")
    call expect(network%client_state() == '{"time": 4}', "its client state")
    call network%predict(x, predicted)
    call expect(all(predicted == expected), "the network as it was")
    call network%save_async(folder // "/beside.h5/below.h5", ierr=code)
    call expect(code == TESSERA_IO, "a file is no folder")
  end subroutine

  subroutine talk_in_groups()
    type(tessera_runtime) :: runtime
    type(tessera_group) :: world, part, nobody
    type(tessera_mesh) :: mesh
    type(tessera_group) :: line
    integer :: ranks, i, code
    integer(int64) :: whole(3)
    integer(int32), allocatable :: sent(:), received(:)
    real(real64), allocatable :: all(:, :)
    real(real64) :: own(2), number
    call MPI_Comm_size(MPI_COMM_WORLD, ranks)
    call runtime%create(MPI_COMM_WORLD)
    call expect(.not. world%exists(), "not made yet")
    call runtime%world(world)
    call expect(world%exists(), "made")
    call expect(world%rank() == rank, "the rank")
    call expect(world%size() == ranks, "the ranks")
    own = [rank + 0.5_real64, -1.0_real64]
    allocate (all(2, ranks), sent(ranks), received(ranks))
    call world%all_gather(own, all)
    call expect(all(1, ranks) == ranks - 0.5_real64 .and. count(all(2, :) == -1) == ranks, "all_gather")
    call world%reduce_scatter(all, own, TESSERA_SUM)
    call expect(own(1) == ranks * (rank + 0.5_real64), "reduce_scatter")
    whole = [1, 2, rank]
    call world%all_reduce(whole, TESSERA_MAX)
    call expect(all_equal(whole, [1, 2, ranks - 1]), "all_reduce")
    number = rank
    call world%broadcast(number, ranks - 1)
    call expect(number == ranks - 1, "broadcast of a single number")
    sent = [(100 * rank + i, i=0, ranks - 1)]
    call world%all_to_all(sent, received)
    call expect(all_equal(int(received, int64), [(100 * i + rank, i=0, ranks - 1)]), "all_to_all")
    if (ranks > 1 .and. rank == 0) call world%send(sent, 1, 5)
    if (rank == 1) call world%receive(received, 0, 5)
    if (rank == 1) call expect(received(ranks) == ranks - 1, "a message")
    call world%barrier()
    call world%split(mod(rank, 2), -rank, part)
    call expect(part%size() == (ranks + 1 - mod(rank, 2)) / 2, "a part")
    call world%split(-1, 0, nobody)
    call expect(.not. nobody%exists(), "a part of nobody")
    call mesh%create(runtime, tensor=merge(2, 1, mod(ranks, 2) == 0))
    call expect(mesh%coordinate("tensor") == mod(rank, mesh%size("tensor")), "a coordinate")
    call mesh%group("data", line)
    call expect(line%size() * mesh%size("tensor") == ranks, "the ranks of an axis")
    call world%all_reduce(all(1, :), TESSERA_SUM, code)
    call expect(code == TESSERA_OK .eqv. ranks == 1, "an array with gaps")
    call world%broadcast(own, 99, code)
    call expect(code == TESSERA_INVALID_ARGUMENT, "a root that is not there")
    call learn_in_a_part(runtime, part)
  end subroutine

  ! Each part has a network and an optimizer of its own.
  subroutine learn_in_a_part(runtime, part)
    type(tessera_runtime), intent(in) :: runtime
    type(tessera_group), intent(in) :: part
    type(tessera_network) :: network
    type(tessera_optimizer) :: optimizer
    real(real32), target :: w(2), dw(2)
    real(real64) :: x(2, 16), y(16), first, loss
    integer :: i
    call make_samples(x, y)
    y = mod(rank, 2)
    call network%create(runtime, config(""), part)
    call network%evaluate(x, y, first)
    do i = 1, 100
      call network%train_step(x, y, loss)
    end do
    call expect(loss < 0.1 * first, "the part's own target")
    w = 1
    dw = 1 + mod(rank, 2)
    call optimizer%create(runtime, "{optimizer: {type: SGD, params: {lr: 0.5}}, gradient_clipping: 0}", part, &
      TESSERA_MEAN)
    call optimizer%add("w", w, dw)
    call optimizer%commit()
    call optimizer%step()
    call expect(all(w == 0.5 - 0.5 * mod(rank, 2)), "the part's own gradient")
  end subroutine

  logical function all_equal(a, b)
    integer(int64), intent(in) :: a(:)
    integer, intent(in) :: b(:)
    all_equal = all(a == b)
  end function

  subroutine take_arrays_as_they_lie()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network
    real(real64) :: x(2, 24), y(24), expected(24), wide(3, 24)
    real(real32) :: narrow(2, 24), field(1, 2, 3, 4), state(2, 2, 3, 1, 4)
    integer :: i
    call make_samples(x, y)
    call runtime%create(MPI_COMM_WORLD)
    call network%create(runtime, config(""))
    call network%predict(x, expected)
    narrow = real(x, real32)
    wide = -1
    call network%predict(narrow, wide(2, :))
    call expect(all(wide(2, :) == expected) .and. all(wide(1::2, :) == -1), "real32 in, a section out")
    wide(3:1:-2, :) = x
    call network%predict(wide(3:1:-2, ::1), y)
    call expect(all(y == expected), "a section that runs backwards")
    call network%predict(x(:, 1:24:2), y(1:12))
    call expect(all(y(1:12) == expected(1:24:2)), "every other sample")
    ! Several dimensions of features: 4 samples of 2 × 3 × 1 in one case, wrong for this network.
    state = 0
    field = 0
    call network%predict(state, field, i)
    call expect(i == TESSERA_INVALID_ARGUMENT, "features that do not fit")
  end subroutine

  subroutine optimize()
    type(tessera_runtime) :: runtime
    type(tessera_optimizer) :: optimizer
    type(tessera_step) :: step
    real(real32), target :: w(3, 2), dw(3, 2), goal(3, 2)
    integer :: i
    goal = reshape([1, 2, 3, 4, 5, 6], [3, 2])
    w = 0
    call runtime%create(MPI_COMM_WORLD)
    call optimizer%create(runtime, "{optimizer: {type: SGD, params: {lr: 0.25}}, gradient_clipping: 0}", TESSERA_MEAN)
    call optimizer%add("w", w, dw)
    call optimizer%commit()
    do i = 1, 40
      dw = w - goal
      call optimizer%step(step)
    end do
    call expect(maxval(abs(w - goal)) < 1e-3, "descent reaches the goal")
    call expect(step%gradient_norm < 1e-2 .and. step%skipped == 0, "the gradient's norm")
    call optimizer%save(folder // "/own.h5")
    w = 0
    call optimizer%load(folder // "/own.h5")
    call expect(maxval(abs(w - goal)) < 1e-3, "loaded")
    call expect(optimizer%steps() == 40_int64, "the file's step")
    call expect(optimizer%client_state() == "", "no client state")
    call optimizer%add("late", w, dw, i)
    call expect(i == TESSERA_INVALID_ARGUMENT, "too late to add")
    call optimizer%destroy()
    call optimizer%destroy()
  end subroutine

  subroutine say_what_is_wrong()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network
    integer :: code
    integer(int32) :: whole(2, 3)
    logical :: flags(3)
    call network%create(runtime, config(""), code)
    call expect(code == TESSERA_INVALID_ARGUMENT, "no runtime yet")
    call runtime%create(MPI_COMM_NULL, code)
    call expect(code == TESSERA_INVALID_ARGUMENT, "no communicator")
    call runtime%create(MPI_COMM_WORLD, code)
    call expect(code == TESSERA_OK, "a runtime")
    call network%create(runtime, config(", activatoin: relu"), code)
    call expect(code == TESSERA_INVALID_CONFIG, "a misspelt key")
    call expect(index(tessera_last_error(), "activation") > 0, "what it should have been")
    call network%create(runtime, config(""), code)
    whole = 1
    flags = .true.
    call network%predict(whole, flags, code)
    call expect(code == TESSERA_INVALID_ARGUMENT, "logicals")
    call expect(index(tessera_last_error(), "real(real32)") > 0, "which types there are")
    call expect(index(tessera_version(), ".") > 0, "the version")
  end subroutine

  subroutine stop_with_the_text()
    type(tessera_runtime) :: runtime
    type(tessera_network) :: network
    call runtime%create(MPI_COMM_WORLD)
    call network%create(runtime, "model: {model_type: mlp, layer_sizes: [2, 1], loss: mae}")
  end subroutine

end program
