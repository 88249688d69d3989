// SPDX-License-Identifier: Apache-2.0
// Tessera for programs in C, and in whatever calls C: training inside a running MPI job.
//
// What holds for every function:
// - It returns a tessera_code; what went wrong is in tessera_last_error(). Nothing is thrown, and
//   nothing is printed (tessera_set_log). The process is ended only where a rank waits in vain for
//   others longer than timeout_seconds inside an MPI call that cannot be left otherwise.
// - What a *_create, or another function with a handle ** at its end, made is given back by the
//   *_destroy of its type, which sets the handle to NULL; NULL itself is fine there. Handles may be
//   destroyed in any order: a runtime closes when nothing that came from it is left.
// - Option structs begin with their size and mean the default wherever they are zero:
//       tessera_runtime_options options = {sizeof options};
//   NULL stands for all defaults. Output structs need their size as well.
// - "Collective" means: called by all ranks of the group, in the same order. *_create and *_destroy
//   are. An error that all ranks can know is the same on all of them.
// - One thread at a time uses a runtime and what came from it. OpenMP regions inside have
//   OMP_NUM_THREADS threads; without it at most the node's cores divided among the ranks there.
#ifndef TESSERA_TESSERA_H
#define TESSERA_TESSERA_H

#include <stddef.h>
#include <stdint.h>

#include <mpi.h>

#if defined(__GNUC__)
#define TESSERA_API __attribute__((visibility("default")))
#else
#define TESSERA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

// --- Errors, versions, messages ---

/// Values are part of the interface and never change.
typedef enum tessera_code {
  TESSERA_OK = 0,
  TESSERA_INVALID_ARGUMENT = 1,  ///< the caller passed something impossible
  TESSERA_INVALID_CONFIG = 2,    ///< a configuration text is wrong
  TESSERA_NOT_SUPPORTED = 3,     ///< this version or build cannot do it
  TESSERA_OUT_OF_MEMORY = 4,
  TESSERA_IO = 5,         ///< a file could not be read or written, or is damaged
  TESSERA_NOT_SAVED = 6,  ///< a run ended because its state could not be saved
  TESSERA_MPI = 7,
  TESSERA_CUDA = 8,
  TESSERA_NCCL = 9,
  TESSERA_TIMEOUT = 10,       ///< a rank did not arrive in time
  TESSERA_PEER_FAILED = 11,   ///< another rank reported an error first
  TESSERA_NOT_A_NUMBER = 12,  ///< training produced a NaN or an infinity
  TESSERA_INTERNAL = 13       ///< a defect of the library
} tessera_code;

/// "ok", "invalid argument", …
TESSERA_API const char* tessera_code_name(tessera_code code);
/// What the last call of this thread that failed said: what was wrong, the values, what to do. ""
/// if none did. Valid until the next one fails.
TESSERA_API const char* tessera_last_error(void);
/// "0.1.0"
TESSERA_API const char* tessera_version(void);

typedef enum tessera_log_level {
  TESSERA_LOG_DEBUG = 0,
  TESSERA_LOG_INFO = 1,
  TESSERA_LOG_WARNING = 2,
  TESSERA_LOG_ERROR = 3
} tessera_log_level;
typedef void (*tessera_log_function)(tessera_log_level level, const char* line, void* user);
/// The library says nothing by itself once a program has made a runtime through this interface.
/// `log` hears what it would say (warnings on every rank, the rest on rank 0), from any thread, one
/// at a time; NULL: nobody. Process-wide.
TESSERA_API tessera_code tessera_set_log(tessera_log_function log, void* user);

// --- Arrays ---

typedef enum tessera_dtype {
  TESSERA_FP32 = 0,
  TESSERA_BF16 = 1,
  TESSERA_FP16 = 2,
  TESSERA_FP64 = 3,
  TESSERA_INT32 = 4,
  TESSERA_INT64 = 5,
  TESSERA_UINT8 = 6
} tessera_dtype;

typedef enum tessera_order {
  TESSERA_ROW_MAJOR = 0,    ///< C: the last dimension is the fastest
  TESSERA_COLUMN_MAJOR = 1  ///< Fortran: the first dimension is the fastest
} tessera_order;

typedef enum tessera_device_type {
  TESSERA_CPU = 0,
  TESSERA_CUDA_DEVICE = 1,
  /// Of arrays: a GPU if `data` is an address of its memory, else the CPU. GPUs are thought of once
  /// the runtime uses one: from the first network or optimizer with `device: cuda`,
  /// tessera_group_open_gpus or tessera_runtime_gpu on, or where its options name one.
  TESSERA_DEVICE_OF_ADDRESS = 2
} tessera_device_type;
typedef struct tessera_device {
  tessera_device_type type;
  int32_t index;
} tessera_device;

enum { TESSERA_MAX_RANK = 8 };

/// An array of the caller, where it lies:
///     tessera_array a = {.data = w, .dtype = TESSERA_FP32, .rank = 2, .dims = {rows, columns}};
/// `dims` are as the caller's language writes them. A column-major array [nx, ny, samples] is the
/// row-major array [samples, ny, nx] that has the same memory, and is taken as that: the slowest
/// dimension always counts the samples, and nothing is copied.
typedef struct tessera_array {
  void* data;
  tessera_dtype dtype;
  int32_t rank;  ///< number of dimensions; 0: a single number
  int64_t dims[TESSERA_MAX_RANK];
  /// Elements from one to the next in each dimension, in the order of `dims`; all zero: contiguous.
  /// Inputs, targets and outputs of networks may have any; elsewhere arrays have to be contiguous.
  int64_t strides[TESSERA_MAX_RANK];
  tessera_order order;
  tessera_device device;  ///< where `data` lies: the CPU, or this rank's GPU (tessera_runtime_gpu)
} tessera_array;

// Arrays may lie in the memory of this rank's GPU wherever a function takes one, and inputs,
// targets and outputs of networks on the host or on the GPU whatever `device` the configuration
// says; they are brought to where the network is. TESSERA_NOT_SUPPORTED in builds and on machines
// without CUDA.
//
// Work on a GPU goes through a stream of the library's own, which waits for no other, also not for
// the default stream. So whoever writes or reads an array in kernels or copies of its own waits for
// them (cudaStreamSynchronize, `acc wait`, Kokkos::fence) before the array is given to a function:
// gradients before tessera_optimizer_step, for example. When a function returns, what it writes is
// there, for every stream, and what it reads may be changed.

// --- Runtime: Tessera's part of the MPI job ---

typedef struct tessera_runtime tessera_runtime;
typedef struct tessera_group tessera_group;
typedef struct tessera_mesh tessera_mesh;

typedef struct tessera_runtime_options {
  size_t struct_size;
  const char* transport;   ///< "auto" (NULL), "self", "shm", "mpi" or "hybrid"
  double timeout_seconds;  ///< 0: 600; negative: ranks wait for ever
  int32_t checked;         ///< not 0: compare operation, count and type over ranks in every call
  /// {TESSERA_CUDA_DEVICE, index}: the GPU that this rank uses, as cudaGetDevice numbers them.
  /// Zero: the only one that the process sees, else the one of its number among the node's ranks.
  tessera_device gpu;
} tessera_runtime_options;

/// Works on duplicates of `communicator`, which stays as it is, with its error handler, attributes
/// and messages. Initialises MPI if nobody did (then `communicator` is MPI_COMM_WORLD) and
/// finalises only what it initialised, when the process ends. If the host calls MPI_Finalize first,
/// everything closes inside it. Several runtimes may live at once. Collective.
TESSERA_API tessera_code tessera_runtime_create(MPI_Comm communicator,
                                                const tessera_runtime_options* options,
                                                tessera_runtime** runtime);
/// The same for a communicator of Fortran.
TESSERA_API tessera_code tessera_runtime_create_f(MPI_Fint communicator,
                                                  const tessera_runtime_options* options,
                                                  tessera_runtime** runtime);
TESSERA_API tessera_code tessera_runtime_destroy(tessera_runtime** runtime);
/// This rank's GPU, where `device: cuda` computes and arrays may lie; {TESSERA_CPU, 0} if there is
/// none. A query.
TESSERA_API tessera_code tessera_runtime_gpu(tessera_runtime* runtime, tessera_device* gpu);

// --- Groups of ranks and their collectives ---

/// All ranks of the runtime.
TESSERA_API tessera_code tessera_runtime_world(tessera_runtime* runtime, tessera_group** world);
/// Ranks with the same colour, ordered by (key, rank); `part` is NULL for a negative colour.
/// Collective.
TESSERA_API tessera_code tessera_group_split(tessera_group* group, int color, int key,
                                             tessera_group** part);
TESSERA_API tessera_code tessera_group_rank(tessera_group* group, int* rank);
TESSERA_API tessera_code tessera_group_size(tessera_group* group, int* size);
/// Connects the ranks' GPUs. Collectives on arrays of GPUs do it by themselves; messages in a group
/// of more than two ranks need it before. Collective.
TESSERA_API tessera_code tessera_group_open_gpus(tessera_group* group);
TESSERA_API tessera_code tessera_group_destroy(tessera_group** group);

/// Sizes of the axes; the last one, tensor, varies fastest. 0: 1, but what is left for data.
typedef struct tessera_mesh_shape {
  size_t struct_size;
  int32_t pipeline, data, sequence, tensor;
} tessera_mesh_shape;

TESSERA_API tessera_code tessera_mesh_create(tessera_runtime* runtime,
                                             const tessera_mesh_shape* shape, tessera_mesh** mesh);
/// The ranks that differ from this one along "pipeline", "data", "sequence" or "tensor" only, or
/// along several of them joined by +. Collective.
TESSERA_API tessera_code tessera_mesh_group(tessera_mesh* mesh, const char* axis,
                                            tessera_group** group);
/// Where this rank stands on the axis, and how long that is; either may be NULL.
TESSERA_API tessera_code tessera_mesh_coordinate(tessera_mesh* mesh, const char* axis,
                                                 int* coordinate, int* size);
TESSERA_API tessera_code tessera_mesh_destroy(tessera_mesh** mesh);

typedef enum tessera_reduction {
  TESSERA_SUM = 0,
  TESSERA_MEAN = 1,
  TESSERA_MIN = 2,
  TESSERA_MAX = 3
} tessera_reduction;

// On contiguous arrays of the caller, which lie on the host on every rank or on a GPU on every
// rank; they return when the array may be used. Reductions are folded by rank in fp32 (fp64 for
// fp64, integers exactly) and rounded once: the result does not depend on timing or transport. On
// GPUs they are NCCL's where the build has it and each rank a GPU of its own. Collective, but for
// messages.

/// In place.
TESSERA_API tessera_code tessera_all_reduce(tessera_group* group, const tessera_array* data,
                                            tessera_reduction reduction);
TESSERA_API tessera_code tessera_broadcast(tessera_group* group, const tessera_array* data,
                                           int root);
/// `receive` has room for `send` of each rank, in the order of the ranks.
TESSERA_API tessera_code tessera_all_gather(tessera_group* group, const tessera_array* send,
                                            const tessera_array* receive);
/// `send` holds a piece of the size of `receive` for each rank.
TESSERA_API tessera_code tessera_reduce_scatter(tessera_group* group, const tessera_array* send,
                                                const tessera_array* receive,
                                                tessera_reduction reduction);
/// Both hold a piece for each rank, of the same size.
TESSERA_API tessera_code tessera_all_to_all(tessera_group* group, const tessera_array* send,
                                            const tessera_array* receive);
/// A message of an array on a GPU has no tag: between two ranks they pair up in the order of the
/// calls, and tessera_send may wait for its tessera_receive.
TESSERA_API tessera_code tessera_send(tessera_group* group, const tessera_array* data, int to,
                                      int tag);
TESSERA_API tessera_code tessera_receive(tessera_group* group, const tessera_array* data, int from,
                                         int tag);
TESSERA_API tessera_code tessera_barrier(tessera_group* group);

// --- Optimizer: training the caller's own arrays ---

typedef struct tessera_optimizer tessera_optimizer;

typedef struct tessera_optimizer_options {
  size_t struct_size;
  /// YAML or JSON text: a DeepSpeed configuration, or a run file's `engine` section. NULL: AdamW,
  /// stage 0, fp32. doc/configuration.md has all keys; batch sizes may be left out. For arrays on
  /// GPUs a run file's text that says so:
  ///     {device: cuda, engine: {optimizer: {type: AdamW}, zero_optimization: {stage: 2}}}
  const char* config;
  /// Of the ranks' gradients.
  tessera_reduction reduction;
  /// The ranks that train together; NULL: all.
  tessera_group* group;
} tessera_optimizer_options;

typedef struct tessera_parameter_options {
  size_t struct_size;
  int32_t frozen;  ///< not 0: never updated
  /// Weight decay of this array, where has_weight_decay is not 0; else the configuration's.
  int32_t has_weight_decay;
  double weight_decay;
} tessera_parameter_options;

/// What a step did; the same on every rank.
typedef struct tessera_step {
  size_t struct_size;
  int64_t step;          ///< number of the step, from 1
  double loss;           ///< of a network: mean over the global batch, before the update
  double learning_rate;  ///< that the update used
  double gradient_norm;  ///< global, before clipping
  double loss_scale;     ///< that gradients were multiplied by
  int32_t skipped;       ///< not 0: a gradient was not finite, and nothing changed
} tessera_step;

/// Partitions optimizer states over the ranks, in stages 1 to 3 of ZeRO. Collective.
TESSERA_API tessera_code tessera_optimizer_create(tessera_runtime* runtime,
                                                  const tessera_optimizer_options* options,
                                                  tessera_optimizer** optimizer);
TESSERA_API tessera_code tessera_optimizer_destroy(tessera_optimizer** optimizer);
/// Lends a contiguous array and its gradient, which has its shape and type (fp32, or bf16 or fp16
/// if the configuration enables that), both on the configuration's `device`; they stay in place and
/// whole on every rank until the optimizer is destroyed. `gradient` may be NULL when the array is
/// frozen.
TESSERA_API tessera_code tessera_optimizer_add(tessera_optimizer* optimizer, const char* name,
                                               const tessera_array* parameter,
                                               const tessera_array* gradient,
                                               const tessera_parameter_options* options);
/// All arrays are there; they take the values of rank 0. Collective.
TESSERA_API tessera_code tessera_optimizer_commit(tessera_optimizer* optimizer);
/// Reduces the gradients over the ranks, clips, updates, and gathers the arrays. `result` may be
/// NULL. Collective.
TESSERA_API tessera_code tessera_optimizer_step(tessera_optimizer* optimizer, tessera_step* result);
/// With fp16: what the gradients of the coming step have to be multiplied by; else 1.
TESSERA_API tessera_code tessera_optimizer_loss_scale(tessera_optimizer* optimizer, double* scale);
/// Writes one HDF5 file with everything an exact resume needs. A path that ends in ".h5" is the
/// file, which is replaced when the new one is whole; else it is a folder, and the file is
/// step-00000100.h5 in it. `client_state` is JSON text of the caller's; NULL: none. Collective.
TESSERA_API tessera_code tessera_optimizer_save(tessera_optimizer* optimizer, const char* path,
                                                const char* client_state);
/// Continues from such a file, or the newest whole one of a folder; written by any number of ranks
/// in any stage. Collective.
TESSERA_API tessera_code tessera_optimizer_load(tessera_optimizer* optimizer, const char* path);
/// As the file that was loaded last has it; "" if there was none. Valid until the next load.
TESSERA_API tessera_code tessera_optimizer_client_state(tessera_optimizer* optimizer,
                                                        const char** client_state);
/// Steps done, skipped ones too.
TESSERA_API tessera_code tessera_optimizer_steps(tessera_optimizer* optimizer, int64_t* steps);

// --- Networks by configuration, trained on the caller's data ---

typedef struct tessera_network tessera_network;

/// Computes a layer of the caller's own, for example what is known of the physics: writes all of y.
/// Arrays are row-major fp32: x [samples, inputs], y [samples, outputs], w [parameters]. It may not
/// call Tessera, and samples is never 0. Where the pointers point: callbacks_on_device.
typedef void (*tessera_layer_forward)(int64_t samples, int64_t inputs, int64_t outputs,
                                      int64_t parameters, const float* x, const float* w, float* y,
                                      void* user);
/// Its gradients: from dy = d loss / dy writes dx [samples, inputs] and, summed over the samples,
/// dw [parameters]; both hold zeros before.
typedef void (*tessera_layer_backward)(int64_t samples, int64_t inputs, int64_t outputs,
                                       int64_t parameters, const float* x, const float* w,
                                       const float* dy, float* dx, float* dw, void* user);

/// Takes the place of layer `index` of a network of model_type mlp, with its activation and
/// normalisation; the others learn through it. What it computes has to be the same function on all
/// ranks.
typedef struct tessera_layer {
  size_t struct_size;
  int32_t index;       ///< from 0: from layer_sizes[index] numbers to layer_sizes[index + 1]
  int64_t parameters;  ///< trainable numbers of its own, in checkpoints "layers.<index>.own"
  double deviation;    ///< of the normal distribution that they begin with; 0: zeros
  tessera_layer_forward forward;
  tessera_layer_backward backward;
  void* user;
} tessera_layer;

typedef struct tessera_network_options {
  size_t struct_size;
  /// YAML or JSON text with a run file's sections `model`, `engine` and `run` (its seed):
  ///     model: {model_type: mlp, layer_sizes: [6, 64, 64, 1], loss: mse}
  ///     engine: {optimizer: {type: AdamW, params: {lr: 1e-3}}, zero_optimization: {stage: 1}}
  /// Batch sizes may be left out; gradient_accumulation_steps divides the samples of each call. A
  /// line `device: cuda` puts the network on the ranks' GPUs, `device: auto` does where every rank
  /// has one; without it the network is on the CPU.
  const char* config;
  tessera_group* group;         ///< the ranks that train together; NULL: all
  const tessera_layer* layers;  ///< that the caller computes, called as long as the network lives
  int32_t layer_count;
  /// What layers and losses of the caller find at their pointers when the network is on a GPU. 0:
  /// copies in host memory, so that functions for the CPU work as they are. Not 0: the memory of
  /// that GPU; it holds what the function reads, for every stream, and what the function writes has
  /// to be there when it returns: wait for your stream. On the CPU it makes no difference.
  int32_t callbacks_on_device;
} tessera_network_options;

// Arrays hold samples along their slowest dimension: the first in row-major order, the last in
// column-major order. Each rank brings its own samples, any number of them, also none. Inputs of
// model_type mlp are floating-point numbers, and so are targets, but for the loss cross_entropy,
// where they are classes (int32; negative: none). gpt2 takes token ids [samples, positions] (int32)
// for both. Arrays may be changed when a call returns. Collective: everything but the queries.

TESSERA_API tessera_code tessera_network_create(tessera_runtime* runtime,
                                                const tessera_network_options* options,
                                                tessera_network** network);
/// Waits for a step and a save that are under way, and fails if one failed; the network is gone in
/// any case.
TESSERA_API tessera_code tessera_network_destroy(tessera_network** network);
/// Samples that decide how inputs and outputs are scaled (normalize_inputs, normalize_outputs), of
/// all ranks together and with those of earlier calls. Either may be NULL. Part of checkpoints.
TESSERA_API tessera_code tessera_network_observe(tessera_network* network,
                                                 const tessera_array* inputs,
                                                 const tessera_array* targets);
/// One optimizer step on the samples of all ranks together. `loss` is their mean before the update.
/// Reading it waits for the other ranks and the device: where it is NULL the step may be under way
/// when the call returns, with all it needs of the arrays, and the next call that wants its outcome
/// (last_step, or anything collective) waits, and fails if the step did.
TESSERA_API tessera_code tessera_network_train_step(tessera_network* network,
                                                    const tessera_array* inputs,
                                                    const tessera_array* targets, double* loss);
/// A loss of the caller's own, for example of how well outputs obey an equation: it takes the
/// outputs of `samples` samples, row-major [samples, outputs] in the caller's units, writes the
/// gradient of their loss (zeros before) and returns the loss, added up over these samples. `first`
/// is the number of the first one among this rank's. It may not call Tessera.
typedef double (*tessera_loss_function)(int64_t first, int64_t samples, int64_t outputs,
                                        const float* values, float* gradients, void* user);
/// As train_step, with that loss; the step's is the mean over the samples of all ranks. For
/// model_type mlp.
TESSERA_API tessera_code tessera_network_train_step_with(tessera_network* network,
                                                         const tessera_array* inputs,
                                                         tessera_loss_function function, void* user,
                                                         double* loss);
/// What the last train_step did. A query if that gave its loss, else it waits and is collective.
TESSERA_API tessera_code tessera_network_last_step(tessera_network* network, tessera_step* result);
/// The mean loss of the samples of all ranks together, without training.
TESSERA_API tessera_code tessera_network_evaluate(tessera_network* network,
                                                  const tessera_array* inputs,
                                                  const tessera_array* targets, double* loss);
/// What the network says to this rank's samples: `outputs` has room for it, in any floating-point
/// type and strides. Numbers of classes are logits.
TESSERA_API tessera_code tessera_network_predict(tessera_network* network,
                                                 const tessera_array* inputs,
                                                 const tessera_array* outputs);
/// Checkpoints as tessera_optimizer_save, tessera_optimizer_load and its client state.
TESSERA_API tessera_code tessera_network_save(tessera_network* network, const char* path,
                                              const char* client_state);
/// The same beside training: returns when the file is begun, whose content is the network as it is
/// now; the following steps have the same bits, and may be slower. Needs memory for a copy of what
/// it saves. Waits for the save before, of which there is one at a time, and fails if that failed.
/// MPI_Finalize waits too; what failed then is a warning.
TESSERA_API tessera_code tessera_network_save_async(tessera_network* network, const char* path,
                                                    const char* client_state);
/// Waits until the file is there. TESSERA_IO: why the last save_async left none; said once. Without
/// one there is nothing to wait for, and all is well.
TESSERA_API tessera_code tessera_network_finish_save(tessera_network* network);
/// Whether a save is under way: 1 or 0, the same on all ranks; steps notice when it ended. A query.
TESSERA_API tessera_code tessera_network_saving(tessera_network* network, int* saving);
TESSERA_API tessera_code tessera_network_load(tessera_network* network, const char* path);
TESSERA_API tessera_code tessera_network_client_state(tessera_network* network,
                                                      const char** client_state);
/// Steps done, skipped ones too. A query.
TESSERA_API tessera_code tessera_network_steps(tessera_network* network, int64_t* steps);
/// Trainable numbers of the whole network. A query.
TESSERA_API tessera_code tessera_network_parameters(tessera_network* network, int64_t* count);

#ifdef __cplusplus
}
#endif

#endif  // TESSERA_TESSERA_H
