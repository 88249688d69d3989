! SPDX-License-Identifier: Apache-2.0
! Tessera for programs in Fortran: the C interface (tessera/tessera.h) as types with procedures.
!
! - Every procedure has an optional last argument ierr, which takes a TESSERA_ code; tessera_last_error() has the text.
!   Without ierr an error stops the program with that text.
! - Arrays are real(real32), real(real64), integer(int32) or integer(int64) of any rank, sections too; nothing is copied to
!   change their order: the last dimension counts the samples, x(features, samples), and checkpoints show dimensions
!   turned round.
! - Once a network or an optimizer of the runtime has `device: cuda`, arrays may lie on this rank's GPU, and are known by
!   their addresses, as between !$acc host_data use_device(x) and !$acc end host_data or in !$omp target data
!   use_device_addr(x). What the program computes with them is done (!$acc wait) before a call.
! - Objects may not be copied by assignment. They end when they go out of scope, or with destroy, which is collective
!   like create; variables of the main program need destroy.
module tessera
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: int64, real64
#ifdef TESSERA_HAVE_MPI_F08
  use mpi_f08, only: MPI_Comm
#endif
  implicit none
  private

  public :: tessera_runtime, tessera_group, tessera_mesh, tessera_network, tessera_optimizer, tessera_step
  public :: tessera_layer, tessera_layer_forward, tessera_layer_backward, tessera_loss_function
  public :: tessera_last_error, tessera_version

  integer, parameter, public :: TESSERA_OK = 0, TESSERA_INVALID_ARGUMENT = 1, TESSERA_INVALID_CONFIG = 2, &
    TESSERA_NOT_SUPPORTED = 3, TESSERA_OUT_OF_MEMORY = 4, TESSERA_IO = 5, TESSERA_NOT_SAVED = 6, TESSERA_MPI = 7, &
    TESSERA_CUDA = 8, TESSERA_NCCL = 9, TESSERA_TIMEOUT = 10, TESSERA_PEER_FAILED = 11, TESSERA_NOT_A_NUMBER = 12, &
    TESSERA_INTERNAL = 13
  integer, parameter, public :: TESSERA_SUM = 0, TESSERA_MEAN = 1, TESSERA_MIN = 2, TESSERA_MAX = 3

  !> Tessera's part of the MPI job.
  type :: tessera_runtime
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure, private :: runtime_create
#ifdef TESSERA_HAVE_MPI_F08
    procedure, private :: runtime_create_f08
    generic :: create => runtime_create, runtime_create_f08
#else
    generic :: create => runtime_create
#endif
    procedure :: world => runtime_world
    procedure :: destroy => runtime_destroy
    final :: runtime_final
  end type

  !> Ranks, and collectives and messages among them on the program's arrays.
  type :: tessera_group
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: split => group_split
    procedure :: exists => group_exists
    procedure :: rank => group_rank
    procedure :: size => group_size
    procedure :: barrier => group_barrier
    procedure :: open_gpus => group_open_gpus
    procedure :: all_reduce => group_all_reduce
    procedure :: broadcast => group_broadcast
    procedure :: all_gather => group_all_gather
    procedure :: reduce_scatter => group_reduce_scatter
    procedure :: all_to_all => group_all_to_all
    procedure :: send => group_send
    procedure :: receive => group_receive
    procedure :: destroy => group_destroy
    final :: group_final
  end type

  !> The ranks of a runtime on the axes pipeline, data, sequence and tensor.
  type :: tessera_mesh
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: create => mesh_create
    procedure :: group => mesh_group
    procedure :: coordinate => mesh_coordinate
    procedure :: size => mesh_size
    procedure :: destroy => mesh_destroy
    final :: mesh_final
  end type

  !> tessera_mesh_shape of C.
  type, bind(C) :: c_mesh_shape
    integer(c_size_t) :: struct_size = 0
    integer(c_int32_t) :: pipeline = 0, data = 0, sequence = 0, tensor = 0
  end type

  !> What a step did; the same on every rank. As tessera_step in C.
  type, bind(C) :: tessera_step
    integer(c_size_t) :: struct_size = 0
    integer(c_int64_t) :: step = 0
    real(c_double) :: loss = 0
    real(c_double) :: learning_rate = 0
    real(c_double) :: gradient_norm = 0
    real(c_double) :: loss_scale = 1
    integer(c_int32_t) :: skipped = 0
  end type

  ! Functions of the program's own are called with these interfaces and may not call the library. `user` is what was
  ! given along, for example c_loc of an object of the program's.
  abstract interface
    !> The loss of samples first + 1, first + 2, … of this rank, added up, from what the network says to them, in the
    !> program's units. Writes its gradients, which are zeros before.
    function tessera_loss_function(first, samples, outputs, values, gradients, user) bind(C) result(loss)
      import :: c_int64_t, c_float, c_double, c_ptr
      integer(c_int64_t), value :: first, samples, outputs
      real(c_float), intent(in) :: values(outputs, samples)
      real(c_float), intent(inout) :: gradients(outputs, samples)
      type(c_ptr), value :: user
      real(c_double) :: loss
    end function

    !> A layer: writes y.
    subroutine tessera_layer_forward(samples, inputs, outputs, parameters, x, w, y, user) bind(C)
      import :: c_int64_t, c_float, c_ptr
      integer(c_int64_t), value :: samples, inputs, outputs, parameters
      real(c_float), intent(in) :: x(inputs, samples), w(parameters)
      real(c_float), intent(inout) :: y(outputs, samples)
      type(c_ptr), value :: user
    end subroutine

    !> Its gradients: from dy writes dx and, summed over the samples, dw, which are zeros before.
    subroutine tessera_layer_backward(samples, inputs, outputs, parameters, x, w, dy, dx, dw, user) bind(C)
      import :: c_int64_t, c_float, c_ptr
      integer(c_int64_t), value :: samples, inputs, outputs, parameters
      real(c_float), intent(in) :: x(inputs, samples), w(parameters), dy(outputs, samples)
      real(c_float), intent(inout) :: dx(inputs, samples), dw(parameters)
      type(c_ptr), value :: user
    end subroutine
  end interface

  !> Takes the place of a layer of model_type mlp: from layer_sizes(index) numbers to layer_sizes(index + 1), with index
  !> from 1; checkpoints count layers from 0. It may have trainable parameters, which begin normally distributed with the
  !> deviation.
  type :: tessera_layer
    integer :: index = 1
    integer(int64) :: parameters = 0
    real(real64) :: deviation = 0
    procedure(tessera_layer_forward), pointer, nopass :: forward => null()
    procedure(tessera_layer_backward), pointer, nopass :: backward => null()
    type(c_ptr) :: user = c_null_ptr
  end type

  !> tessera_layer of C.
  type, bind(C) :: c_layer
    integer(c_size_t) :: struct_size = 0
    integer(c_int32_t) :: index = 0
    integer(c_int64_t) :: parameters = 0
    real(c_double) :: deviation = 0
    type(c_funptr) :: forward = c_null_funptr, backward = c_null_funptr
    type(c_ptr) :: user = c_null_ptr
  end type

  !> A network by configuration, trained on the program's data.
  type :: tessera_network
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure, private :: network_create, network_create_with_layers, network_create_on_group
    generic :: create => network_create, network_create_with_layers, network_create_on_group
    procedure :: observe => network_observe
    procedure :: train_step => network_train_step
    procedure :: train_step_with => network_train_step_with
    procedure :: last_step => network_last_step
    procedure :: evaluate => network_evaluate
    procedure :: predict => network_predict
    procedure :: save => network_save
    procedure :: save_async => network_save_async
    procedure :: finish_save => network_finish_save
    procedure :: saving => network_saving
    procedure :: load => network_load
    procedure :: client_state => network_client_state
    procedure :: steps => network_steps
    procedure :: destroy => network_destroy
    final :: network_final
  end type

  !> The partitioned optimizer on the program's own arrays, which have to be contiguous and targets.
  type :: tessera_optimizer
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure, private :: optimizer_create, optimizer_create_on_group
    generic :: create => optimizer_create, optimizer_create_on_group
    procedure :: add => optimizer_add
    procedure :: commit => optimizer_commit
    procedure :: step => optimizer_step
    procedure :: save => optimizer_save
    procedure :: load => optimizer_load
    procedure :: client_state => optimizer_client_state
    procedure :: steps => optimizer_steps
    procedure :: destroy => optimizer_destroy
    final :: optimizer_final
  end type

  interface
    function c_last_error() bind(C, name="tessera_last_error") result(text)
      import :: c_ptr
      type(c_ptr) :: text
    end function
    function c_version() bind(C, name="tessera_version") result(text)
      import :: c_ptr
      type(c_ptr) :: text
    end function
    function c_strlen(text) bind(C, name="strlen") result(length)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function

    function c_runtime_create(communicator, options, runtime) bind(C, name="tessera_runtime_create_f") result(code)
      import :: c_ptr, c_int
      integer(c_int), value :: communicator
      type(c_ptr), value :: options
      type(c_ptr) :: runtime
      integer(c_int) :: code
    end function
    function c_runtime_destroy(runtime) bind(C, name="tessera_runtime_destroy") result(code)
      import :: c_ptr, c_int
      type(c_ptr) :: runtime
      integer(c_int) :: code
    end function

    function c_runtime_world(runtime, world) bind(C, name="tessera_runtime_world") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: runtime
      type(c_ptr) :: world
      integer(c_int) :: code
    end function
    function c_group_split(group, color, key, part) bind(C, name="tessera_group_split") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      integer(c_int), value :: color, key
      type(c_ptr) :: part
      integer(c_int) :: code
    end function
    function c_group_rank(group, rank) bind(C, name="tessera_group_rank") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      integer(c_int) :: rank
      integer(c_int) :: code
    end function
    function c_group_size(group, size) bind(C, name="tessera_group_size") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      integer(c_int) :: size
      integer(c_int) :: code
    end function
    function c_group_destroy(group) bind(C, name="tessera_group_destroy") result(code)
      import :: c_ptr, c_int
      type(c_ptr) :: group
      integer(c_int) :: code
    end function
    function c_group_open_gpus(group) bind(C, name="tessera_group_open_gpus") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      integer(c_int) :: code
    end function
    function c_barrier(group) bind(C, name="tessera_barrier") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      integer(c_int) :: code
    end function
    function c_all_reduce(group, data, reduction) bind(C, name="tessera_fortran_all_reduce") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*) :: data(..)
      integer(c_int), value :: reduction
      integer(c_int) :: code
    end function
    function c_broadcast(group, data, root) bind(C, name="tessera_fortran_broadcast") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*) :: data(..)
      integer(c_int), value :: root
      integer(c_int) :: code
    end function
    function c_all_gather(group, send, receive) bind(C, name="tessera_fortran_all_gather") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*), intent(in) :: send(..)
      type(*) :: receive(..)
      integer(c_int) :: code
    end function
    function c_reduce_scatter(group, send, receive, reduction) bind(C, name="tessera_fortran_reduce_scatter") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*), intent(in) :: send(..)
      type(*) :: receive(..)
      integer(c_int), value :: reduction
      integer(c_int) :: code
    end function
    function c_all_to_all(group, send, receive) bind(C, name="tessera_fortran_all_to_all") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*), intent(in) :: send(..)
      type(*) :: receive(..)
      integer(c_int) :: code
    end function
    function c_send(group, data, to, tag) bind(C, name="tessera_fortran_send") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*), intent(in) :: data(..)
      integer(c_int), value :: to, tag
      integer(c_int) :: code
    end function
    function c_receive(group, data, from, tag) bind(C, name="tessera_fortran_receive") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: group
      type(*) :: data(..)
      integer(c_int), value :: from, tag
      integer(c_int) :: code
    end function
    function c_mesh_create(runtime, shape, mesh) bind(C, name="tessera_mesh_create") result(code)
      import :: c_ptr, c_int, c_mesh_shape
      type(c_ptr), value :: runtime
      type(c_mesh_shape), intent(in) :: shape
      type(c_ptr) :: mesh
      integer(c_int) :: code
    end function
    function c_mesh_group(mesh, axis, group) bind(C, name="tessera_mesh_group") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: mesh
      character(kind=c_char), intent(in) :: axis(*)
      type(c_ptr) :: group
      integer(c_int) :: code
    end function
    function c_mesh_coordinate(mesh, axis, coordinate, size) bind(C, name="tessera_mesh_coordinate") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: mesh
      character(kind=c_char), intent(in) :: axis(*)
      integer(c_int) :: coordinate, size
      integer(c_int) :: code
    end function
    function c_mesh_destroy(mesh) bind(C, name="tessera_mesh_destroy") result(code)
      import :: c_ptr, c_int
      type(c_ptr) :: mesh
      integer(c_int) :: code
    end function

    function c_network_create(runtime, config, group, layers, layer_count, network) &
        bind(C, name="tessera_fortran_network_create") result(code)
      import :: c_ptr, c_int, c_char, c_layer
      type(c_ptr), value :: runtime, group
      character(kind=c_char), intent(in) :: config(*)
      type(c_layer), intent(in) :: layers(*)
      integer(c_int), value :: layer_count
      type(c_ptr) :: network
      integer(c_int) :: code
    end function
    function c_network_observe(network, inputs, targets) bind(C, name="tessera_fortran_network_observe") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: network
      type(*), intent(in), optional :: inputs(..), targets(..)
      integer(c_int) :: code
    end function
    function c_network_train_step(network, inputs, targets, loss) &
        bind(C, name="tessera_fortran_network_train_step") result(code)
      import :: c_ptr, c_int, c_double
      type(c_ptr), value :: network
      type(*), intent(in) :: inputs(..), targets(..)
      real(c_double), intent(out), optional :: loss
      integer(c_int) :: code
    end function
    function c_network_train_step_with(network, inputs, loss_function, user, loss) &
        bind(C, name="tessera_fortran_network_train_step_with") result(code)
      import :: c_ptr, c_funptr, c_int, c_double
      type(c_ptr), value :: network
      type(*), intent(in) :: inputs(..)
      type(c_funptr), value :: loss_function
      type(c_ptr), value :: user
      real(c_double), intent(out), optional :: loss
      integer(c_int) :: code
    end function
    function c_network_last_step(network, step) bind(C, name="tessera_network_last_step") result(code)
      import :: c_ptr, c_int, tessera_step
      type(c_ptr), value :: network
      type(tessera_step) :: step
      integer(c_int) :: code
    end function
    function c_network_evaluate(network, inputs, targets, loss) &
        bind(C, name="tessera_fortran_network_evaluate") result(code)
      import :: c_ptr, c_int, c_double
      type(c_ptr), value :: network
      type(*), intent(in) :: inputs(..), targets(..)
      real(c_double) :: loss
      integer(c_int) :: code
    end function
    function c_network_predict(network, inputs, outputs) bind(C, name="tessera_fortran_network_predict") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: network
      type(*), intent(in) :: inputs(..)
      type(*) :: outputs(..)
      integer(c_int) :: code
    end function
    function c_network_save(network, path, client_state) bind(C, name="tessera_network_save") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: network
      character(kind=c_char), intent(in) :: path(*), client_state(*)
      integer(c_int) :: code
    end function
    function c_network_save_async(network, path, client_state) bind(C, name="tessera_network_save_async") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: network
      character(kind=c_char), intent(in) :: path(*), client_state(*)
      integer(c_int) :: code
    end function
    function c_network_finish_save(network) bind(C, name="tessera_network_finish_save") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: network
      integer(c_int) :: code
    end function
    function c_network_saving(network, saving) bind(C, name="tessera_network_saving") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: network
      integer(c_int) :: saving
      integer(c_int) :: code
    end function
    function c_network_load(network, path) bind(C, name="tessera_network_load") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: network
      character(kind=c_char), intent(in) :: path(*)
      integer(c_int) :: code
    end function
    function c_network_client_state(network, text) bind(C, name="tessera_network_client_state") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: network
      type(c_ptr) :: text
      integer(c_int) :: code
    end function
    function c_network_steps(network, steps) bind(C, name="tessera_network_steps") result(code)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: network
      integer(c_int64_t) :: steps
      integer(c_int) :: code
    end function
    function c_network_destroy(network) bind(C, name="tessera_network_destroy") result(code)
      import :: c_ptr, c_int
      type(c_ptr) :: network
      integer(c_int) :: code
    end function

    function c_optimizer_create(runtime, config, group, reduction, optimizer) &
        bind(C, name="tessera_fortran_optimizer_create") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: runtime, group
      character(kind=c_char), intent(in) :: config(*)
      integer(c_int), value :: reduction
      type(c_ptr) :: optimizer
      integer(c_int) :: code
    end function
    function c_optimizer_add(optimizer, name, parameter, gradient) &
        bind(C, name="tessera_fortran_optimizer_add") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: optimizer
      character(kind=c_char), intent(in) :: name(*)
      type(*), target :: parameter(..), gradient(..)
      integer(c_int) :: code
    end function
    function c_optimizer_commit(optimizer) bind(C, name="tessera_optimizer_commit") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: optimizer
      integer(c_int) :: code
    end function
    function c_optimizer_step(optimizer, step) bind(C, name="tessera_optimizer_step") result(code)
      import :: c_ptr, c_int, tessera_step
      type(c_ptr), value :: optimizer
      type(tessera_step) :: step
      integer(c_int) :: code
    end function
    function c_optimizer_save(optimizer, path, client_state) bind(C, name="tessera_optimizer_save") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: optimizer
      character(kind=c_char), intent(in) :: path(*), client_state(*)
      integer(c_int) :: code
    end function
    function c_optimizer_load(optimizer, path) bind(C, name="tessera_optimizer_load") result(code)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: optimizer
      character(kind=c_char), intent(in) :: path(*)
      integer(c_int) :: code
    end function
    function c_optimizer_client_state(optimizer, text) bind(C, name="tessera_optimizer_client_state") result(code)
      import :: c_ptr, c_int
      type(c_ptr), value :: optimizer
      type(c_ptr) :: text
      integer(c_int) :: code
    end function
    function c_optimizer_steps(optimizer, steps) bind(C, name="tessera_optimizer_steps") result(code)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: optimizer
      integer(c_int64_t) :: steps
      integer(c_int) :: code
    end function
    function c_optimizer_destroy(optimizer) bind(C, name="tessera_optimizer_destroy") result(code)
      import :: c_ptr, c_int
      type(c_ptr) :: optimizer
      integer(c_int) :: code
    end function
  end interface

contains

  ! --- Texts and errors ---

  function to_fortran(text) result(copy)
    type(c_ptr), intent(in) :: text
    character(:), allocatable :: copy
    character(kind=c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(text, letters, [c_strlen(text)])
    allocate (character(size(letters)) :: copy)
    do i = 1, size(letters)
      copy(i:i) = letters(i)
    end do
  end function

  !> What the last call that failed said: what was wrong, the values, what to do.
  function tessera_last_error() result(text)
    character(:), allocatable :: text
    text = to_fortran(c_last_error())
  end function

  !> "0.1.0"
  function tessera_version() result(text)
    character(:), allocatable :: text
    text = to_fortran(c_version())
  end function

  subroutine finish(code, ierr)
    integer(c_int), intent(in) :: code
    integer, intent(out), optional :: ierr
    if (present(ierr)) then
      ierr = code
    else if (code /= TESSERA_OK) then
      error stop "tessera: " // tessera_last_error()
    end if
  end subroutine

  function optional_text(text) result(given)
    character(*), intent(in), optional :: text
    character(:), allocatable :: given
    given = c_null_char
    if (present(text)) given = text // c_null_char
  end function

  ! --- Runtime ---

  !> On duplicates of the communicator; MPI is initialised if nobody did. Collective.
  subroutine runtime_create(self, communicator, ierr)
    class(tessera_runtime), intent(inout) :: self
    integer, intent(in) :: communicator
    integer, intent(out), optional :: ierr
    call finish(c_runtime_create(int(communicator, c_int), c_null_ptr, self%handle), ierr)
  end subroutine

#ifdef TESSERA_HAVE_MPI_F08
  subroutine runtime_create_f08(self, communicator, ierr)
    class(tessera_runtime), intent(inout) :: self
    type(MPI_Comm), intent(in) :: communicator
    integer, intent(out), optional :: ierr
    call runtime_create(self, communicator%MPI_VAL, ierr)
  end subroutine
#endif

  subroutine runtime_destroy(self, ierr)
    class(tessera_runtime), intent(inout) :: self
    integer, intent(out), optional :: ierr
    call finish(c_runtime_destroy(self%handle), ierr)
  end subroutine

  subroutine runtime_final(self)
    type(tessera_runtime), intent(inout) :: self
    call self%destroy()
  end subroutine

  ! --- Groups of ranks and their collectives ---

  !> All ranks of the runtime. Collective.
  subroutine runtime_world(self, world, ierr)
    class(tessera_runtime), intent(in) :: self
    type(tessera_group), intent(inout) :: world
    integer, intent(out), optional :: ierr
    call finish(c_runtime_world(self%handle, world%handle), ierr)
  end subroutine

  !> Ranks with the same color, ordered by (key, rank); part does not exist for a negative color. Collective.
  subroutine group_split(self, color, key, part, ierr)
    class(tessera_group), intent(in) :: self
    integer, intent(in) :: color, key
    type(tessera_group), intent(inout) :: part
    integer, intent(out), optional :: ierr
    call finish(c_group_split(self%handle, int(color, c_int), int(key, c_int), part%handle), ierr)
  end subroutine

  !> False before it is made, after destroy, and for a part that this rank is not in.
  function group_exists(self) result(exists)
    class(tessera_group), intent(in) :: self
    logical :: exists
    exists = c_associated(self%handle)
  end function

  !> From 0, as in MPI.
  function group_rank(self) result(rank)
    class(tessera_group), intent(in) :: self
    integer :: rank
    call finish(c_group_rank(self%handle, rank))
  end function

  function group_size(self) result(ranks)
    class(tessera_group), intent(in) :: self
    integer :: ranks
    call finish(c_group_size(self%handle, ranks))
  end function

  !> Collective.
  subroutine group_barrier(self, ierr)
    class(tessera_group), intent(in) :: self
    integer, intent(out), optional :: ierr
    call finish(c_barrier(self%handle), ierr)
  end subroutine

  !> Connects the ranks' GPUs: from then on collectives and messages take arrays on them, also where no network or
  !> optimizer of the runtime is on a GPU. Collective.
  subroutine group_open_gpus(self, ierr)
    class(tessera_group), intent(in) :: self
    integer, intent(out), optional :: ierr
    call finish(c_group_open_gpus(self%handle), ierr)
  end subroutine

  ! On contiguous arrays; they return when the array may be used. Reductions are folded by rank in real32 (real64 for
  ! real64, integers exactly) and rounded once: the result does not depend on timing.

  !> In place: TESSERA_SUM, TESSERA_MEAN, TESSERA_MIN or TESSERA_MAX. Collective.
  subroutine group_all_reduce(self, data, reduction, ierr)
    class(tessera_group), intent(in) :: self
    type(*) :: data(..)
    integer, intent(in) :: reduction
    integer, intent(out), optional :: ierr
    call finish(c_all_reduce(self%handle, data, int(reduction, c_int)), ierr)
  end subroutine

  !> Collective.
  subroutine group_broadcast(self, data, root, ierr)
    class(tessera_group), intent(in) :: self
    type(*) :: data(..)
    integer, intent(in) :: root
    integer, intent(out), optional :: ierr
    call finish(c_broadcast(self%handle, data, int(root, c_int)), ierr)
  end subroutine

  !> receive has room for send of each rank, in the order of the ranks. Collective.
  subroutine group_all_gather(self, send, receive, ierr)
    class(tessera_group), intent(in) :: self
    type(*), intent(in) :: send(..)
    type(*) :: receive(..)
    integer, intent(out), optional :: ierr
    call finish(c_all_gather(self%handle, send, receive), ierr)
  end subroutine

  !> send holds a piece of the size of receive for each rank. Collective.
  subroutine group_reduce_scatter(self, send, receive, reduction, ierr)
    class(tessera_group), intent(in) :: self
    type(*), intent(in) :: send(..)
    type(*) :: receive(..)
    integer, intent(in) :: reduction
    integer, intent(out), optional :: ierr
    call finish(c_reduce_scatter(self%handle, send, receive, int(reduction, c_int)), ierr)
  end subroutine

  !> Both hold a piece for each rank, of the same size. Collective.
  subroutine group_all_to_all(self, send, receive, ierr)
    class(tessera_group), intent(in) :: self
    type(*), intent(in) :: send(..)
    type(*) :: receive(..)
    integer, intent(out), optional :: ierr
    call finish(c_all_to_all(self%handle, send, receive), ierr)
  end subroutine

  !> To a rank that receives with the same tag, type and number of elements.
  subroutine group_send(self, data, to, tag, ierr)
    class(tessera_group), intent(in) :: self
    type(*), intent(in) :: data(..)
    integer, intent(in) :: to, tag
    integer, intent(out), optional :: ierr
    call finish(c_send(self%handle, data, int(to, c_int), int(tag, c_int)), ierr)
  end subroutine

  subroutine group_receive(self, data, from, tag, ierr)
    class(tessera_group), intent(in) :: self
    type(*) :: data(..)
    integer, intent(in) :: from, tag
    integer, intent(out), optional :: ierr
    call finish(c_receive(self%handle, data, int(from, c_int), int(tag, c_int)), ierr)
  end subroutine

  subroutine group_destroy(self, ierr)
    class(tessera_group), intent(inout) :: self
    integer, intent(out), optional :: ierr
    call finish(c_group_destroy(self%handle), ierr)
  end subroutine

  subroutine group_final(self)
    type(tessera_group), intent(inout) :: self
    call self%destroy()
  end subroutine

  ! --- Mesh ---

  !> Sizes of the axes, of which tensor varies fastest: 1, but data has what is left. Collective.
  subroutine mesh_create(self, runtime, pipeline, data, sequence, tensor, ierr)
    class(tessera_mesh), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    integer, intent(in), optional :: pipeline, data, sequence, tensor
    integer, intent(out), optional :: ierr
    type(c_mesh_shape) :: shape
    shape%struct_size = c_sizeof(shape)
    if (present(pipeline)) shape%pipeline = int(pipeline, c_int32_t)
    if (present(data)) shape%data = int(data, c_int32_t)
    if (present(sequence)) shape%sequence = int(sequence, c_int32_t)
    if (present(tensor)) shape%tensor = int(tensor, c_int32_t)
    call finish(c_mesh_create(runtime%handle, shape, self%handle), ierr)
  end subroutine

  !> The ranks that differ from this one along "pipeline", "data", "sequence" or "tensor" only, or along several of
  !> them joined by +. Collective.
  subroutine mesh_group(self, axis, group, ierr)
    class(tessera_mesh), intent(in) :: self
    character(*), intent(in) :: axis
    type(tessera_group), intent(inout) :: group
    integer, intent(out), optional :: ierr
    call finish(c_mesh_group(self%handle, axis // c_null_char, group%handle), ierr)
  end subroutine

  !> Where this rank stands on the axis, from 0.
  function mesh_coordinate(self, axis) result(coordinate)
    class(tessera_mesh), intent(in) :: self
    character(*), intent(in) :: axis
    integer :: coordinate, ranks
    call finish(c_mesh_coordinate(self%handle, axis // c_null_char, coordinate, ranks))
  end function

  !> How long the axis is.
  function mesh_size(self, axis) result(ranks)
    class(tessera_mesh), intent(in) :: self
    character(*), intent(in) :: axis
    integer :: coordinate, ranks
    call finish(c_mesh_coordinate(self%handle, axis // c_null_char, coordinate, ranks))
  end function

  subroutine mesh_destroy(self, ierr)
    class(tessera_mesh), intent(inout) :: self
    integer, intent(out), optional :: ierr
    call finish(c_mesh_destroy(self%handle), ierr)
  end subroutine

  subroutine mesh_final(self)
    type(tessera_mesh), intent(inout) :: self
    call self%destroy()
  end subroutine

  ! --- Network ---

  !> config: YAML or JSON text with the sections model and engine of a run file. Collective.
  subroutine network_create(self, runtime, config, ierr)
    class(tessera_network), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    integer, intent(out), optional :: ierr
    type(tessera_layer) :: none(0)
    call create_network(self, runtime, config, c_null_ptr, none, ierr)
  end subroutine

  !> The same over some of the ranks, those of the group. Collective.
  subroutine network_create_on_group(self, runtime, config, group, layers, ierr)
    class(tessera_network), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    type(tessera_group), intent(in) :: group
    type(tessera_layer), intent(in), optional :: layers(:)
    integer, intent(out), optional :: ierr
    type(tessera_layer) :: none(0)
    if (present(layers)) then
      call create_network(self, runtime, config, group%handle, layers, ierr)
    else
      call create_network(self, runtime, config, group%handle, none, ierr)
    end if
  end subroutine

  !> The same with layers that the program computes. Collective.
  subroutine network_create_with_layers(self, runtime, config, layers, ierr)
    class(tessera_network), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    type(tessera_layer), intent(in) :: layers(:)
    integer, intent(out), optional :: ierr
    call create_network(self, runtime, config, c_null_ptr, layers, ierr)
  end subroutine

  subroutine create_network(self, runtime, config, group, layers, ierr)
    class(tessera_network), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    type(c_ptr), intent(in) :: group
    type(tessera_layer), intent(in) :: layers(:)
    integer, intent(out), optional :: ierr
    type(c_layer) :: described(size(layers))
    integer :: i
    do i = 1, size(layers)
      described(i)%struct_size = c_sizeof(described(i))
      described(i)%index = int(layers(i)%index - 1, c_int32_t)
      described(i)%parameters = layers(i)%parameters
      described(i)%deviation = layers(i)%deviation
      if (associated(layers(i)%forward)) described(i)%forward = c_funloc(layers(i)%forward)
      if (associated(layers(i)%backward)) described(i)%backward = c_funloc(layers(i)%backward)
      described(i)%user = layers(i)%user
    end do
    call finish(c_network_create(runtime%handle, config // c_null_char, group, described, &
      int(size(layers), c_int), self%handle), ierr)
  end subroutine

  !> Samples that decide how inputs and outputs are scaled, of all ranks together. Collective.
  subroutine network_observe(self, inputs, targets, ierr)
    class(tessera_network), intent(in) :: self
    type(*), intent(in), optional :: inputs(..), targets(..)
    integer, intent(out), optional :: ierr
    call finish(c_network_observe(self%handle, inputs, targets), ierr)
  end subroutine

  !> One optimizer step on the samples of all ranks together; loss is their mean before it. Without loss it may be under
  !> way afterwards: last_step and all that is collective wait for it. Collective.
  subroutine network_train_step(self, inputs, targets, loss, ierr)
    class(tessera_network), intent(in) :: self
    type(*), intent(in) :: inputs(..), targets(..)
    real(real64), intent(out), optional :: loss
    integer, intent(out), optional :: ierr
    call finish(c_network_train_step(self%handle, inputs, targets, loss), ierr)
  end subroutine

  !> The same with a loss of the program's own; the step's is the mean over the samples of all ranks. Collective.
  subroutine network_train_step_with(self, inputs, loss_function, loss, user, ierr)
    class(tessera_network), intent(in) :: self
    type(*), intent(in) :: inputs(..)
    procedure(tessera_loss_function) :: loss_function
    real(real64), intent(out), optional :: loss
    type(c_ptr), intent(in), optional :: user
    integer, intent(out), optional :: ierr
    type(c_ptr) :: object
    object = c_null_ptr
    if (present(user)) object = user
    call finish(c_network_train_step_with(self%handle, inputs, c_funloc(loss_function), object, loss), ierr)
  end subroutine

  !> What the last train_step did; where that was called without loss it waits, and is collective.
  subroutine network_last_step(self, step, ierr)
    class(tessera_network), intent(in) :: self
    type(tessera_step), intent(out) :: step
    integer, intent(out), optional :: ierr
    step%struct_size = c_sizeof(step)
    call finish(c_network_last_step(self%handle, step), ierr)
  end subroutine

  !> The mean loss of the samples of all ranks together, without training. Collective.
  subroutine network_evaluate(self, inputs, targets, loss, ierr)
    class(tessera_network), intent(in) :: self
    type(*), intent(in) :: inputs(..), targets(..)
    real(real64), intent(out) :: loss
    integer, intent(out), optional :: ierr
    loss = 0
    call finish(c_network_evaluate(self%handle, inputs, targets, loss), ierr)
  end subroutine

  !> What the network says to this rank's samples. Collective.
  subroutine network_predict(self, inputs, outputs, ierr)
    class(tessera_network), intent(in) :: self
    type(*), intent(in) :: inputs(..)
    type(*) :: outputs(..)
    integer, intent(out), optional :: ierr
    call finish(c_network_predict(self%handle, inputs, outputs), ierr)
  end subroutine

  !> One file with everything an exact resume needs: "name.h5", or a folder. client_state is JSON. Collective.
  subroutine network_save(self, path, client_state, ierr)
    class(tessera_network), intent(in) :: self
    character(*), intent(in) :: path
    character(*), intent(in), optional :: client_state
    integer, intent(out), optional :: ierr
    call finish(c_network_save(self%handle, path // c_null_char, optional_text(client_state)), ierr)
  end subroutine

  !> The same beside training: returns when the file is begun, with the network as it is now. Waits for the save before,
  !> and fails if that failed. Collective.
  subroutine network_save_async(self, path, client_state, ierr)
    class(tessera_network), intent(in) :: self
    character(*), intent(in) :: path
    character(*), intent(in), optional :: client_state
    integer, intent(out), optional :: ierr
    call finish(c_network_save_async(self%handle, path // c_null_char, optional_text(client_state)), ierr)
  end subroutine

  !> Waits until that file is there. TESSERA_IO: why there is none. Collective.
  subroutine network_finish_save(self, ierr)
    class(tessera_network), intent(in) :: self
    integer, intent(out), optional :: ierr
    call finish(c_network_finish_save(self%handle), ierr)
  end subroutine

  !> Whether a save is under way; steps notice when it ended.
  function network_saving(self) result(saving)
    class(tessera_network), intent(in) :: self
    logical :: saving
    integer(c_int) :: under_way
    under_way = 0
    call finish(c_network_saving(self%handle, under_way))
    saving = under_way /= 0
  end function

  !> Collective.
  subroutine network_load(self, path, ierr)
    class(tessera_network), intent(in) :: self
    character(*), intent(in) :: path
    integer, intent(out), optional :: ierr
    call finish(c_network_load(self%handle, path // c_null_char), ierr)
  end subroutine

  !> As the file that was loaded last has it.
  function network_client_state(self) result(text)
    class(tessera_network), intent(in) :: self
    character(:), allocatable :: text
    type(c_ptr) :: place
    call finish(c_network_client_state(self%handle, place))
    text = to_fortran(place)
  end function

  function network_steps(self) result(steps)
    class(tessera_network), intent(in) :: self
    integer(int64) :: steps
    call finish(c_network_steps(self%handle, steps))
  end function

  subroutine network_destroy(self, ierr)
    class(tessera_network), intent(inout) :: self
    integer, intent(out), optional :: ierr
    call finish(c_network_destroy(self%handle), ierr)
  end subroutine

  subroutine network_final(self)
    type(tessera_network), intent(inout) :: self
    call self%destroy()
  end subroutine

  ! --- Optimizer ---

  !> config: a DeepSpeed configuration; gradients of the ranks are added, or averaged with TESSERA_MEAN. Collective.
  subroutine optimizer_create(self, runtime, config, reduction, ierr)
    class(tessera_optimizer), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    integer, intent(in), optional :: reduction
    integer, intent(out), optional :: ierr
    call create_optimizer(self, runtime, config, c_null_ptr, reduction, ierr)
  end subroutine

  !> The same over some of the ranks, those of the group. Collective.
  subroutine optimizer_create_on_group(self, runtime, config, group, reduction, ierr)
    class(tessera_optimizer), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    type(tessera_group), intent(in) :: group
    integer, intent(in), optional :: reduction
    integer, intent(out), optional :: ierr
    call create_optimizer(self, runtime, config, group%handle, reduction, ierr)
  end subroutine

  subroutine create_optimizer(self, runtime, config, group, reduction, ierr)
    class(tessera_optimizer), intent(inout) :: self
    type(tessera_runtime), intent(in) :: runtime
    character(*), intent(in) :: config
    type(c_ptr), intent(in) :: group
    integer, intent(in), optional :: reduction
    integer, intent(out), optional :: ierr
    integer(c_int) :: how
    how = TESSERA_SUM
    if (present(reduction)) how = reduction
    call finish(c_optimizer_create(runtime%handle, config // c_null_char, group, how, self%handle), ierr)
  end subroutine

  !> Lends an array and its gradient, of the same type and shape, until the optimizer is destroyed.
  subroutine optimizer_add(self, name, parameter, gradient, ierr)
    class(tessera_optimizer), intent(in) :: self
    character(*), intent(in) :: name
    type(*), target :: parameter(..), gradient(..)
    integer, intent(out), optional :: ierr
    call finish(c_optimizer_add(self%handle, name // c_null_char, parameter, gradient), ierr)
  end subroutine

  !> All arrays are there; they take the values of rank 0. Collective.
  subroutine optimizer_commit(self, ierr)
    class(tessera_optimizer), intent(in) :: self
    integer, intent(out), optional :: ierr
    call finish(c_optimizer_commit(self%handle), ierr)
  end subroutine

  !> Reduces the gradients over the ranks, clips, updates, and gathers the arrays. Collective.
  subroutine optimizer_step(self, result, ierr)
    class(tessera_optimizer), intent(in) :: self
    type(tessera_step), intent(out), optional :: result
    integer, intent(out), optional :: ierr
    type(tessera_step) :: step
    step%struct_size = c_sizeof(step)
    call finish(c_optimizer_step(self%handle, step), ierr)
    if (present(result)) result = step
  end subroutine

  !> As for networks. Collective.
  subroutine optimizer_save(self, path, client_state, ierr)
    class(tessera_optimizer), intent(in) :: self
    character(*), intent(in) :: path
    character(*), intent(in), optional :: client_state
    integer, intent(out), optional :: ierr
    call finish(c_optimizer_save(self%handle, path // c_null_char, optional_text(client_state)), ierr)
  end subroutine

  !> Collective.
  subroutine optimizer_load(self, path, ierr)
    class(tessera_optimizer), intent(in) :: self
    character(*), intent(in) :: path
    integer, intent(out), optional :: ierr
    call finish(c_optimizer_load(self%handle, path // c_null_char), ierr)
  end subroutine

  function optimizer_client_state(self) result(text)
    class(tessera_optimizer), intent(in) :: self
    character(:), allocatable :: text
    type(c_ptr) :: place
    call finish(c_optimizer_client_state(self%handle, place))
    text = to_fortran(place)
  end function

  function optimizer_steps(self) result(steps)
    class(tessera_optimizer), intent(in) :: self
    integer(int64) :: steps
    call finish(c_optimizer_steps(self%handle, steps))
  end function

  subroutine optimizer_destroy(self, ierr)
    class(tessera_optimizer), intent(inout) :: self
    integer, intent(out), optional :: ierr
    call finish(c_optimizer_destroy(self%handle), ierr)
  end subroutine

  subroutine optimizer_final(self)
    type(tessera_optimizer), intent(inout) :: self
    call self%destroy()
  end subroutine

end module
