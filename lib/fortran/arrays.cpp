// SPDX-License-Identifier: Apache-2.0
// Between the Fortran module and the C interface: arrays of any type and rank arrive as descriptors
// of the compiler and leave as tessera_array.
extern "C" {
#include <ISO_Fortran_binding.h>
}

#include "c/guard.hpp"

namespace tessera::fortran {
namespace {

tessera_dtype dtype_of(const CFI_cdesc_t& array, const char* name) {
  switch (array.type) {
    case CFI_type_float:
      return TESSERA_FP32;
    case CFI_type_double:
      return TESSERA_FP64;
    case CFI_type_int32_t:
      return TESSERA_INT32;
    case CFI_type_int64_t:
      return TESSERA_INT64;
    default:
      fail(Code::invalid_argument,
           fmt::format("`{}` is neither real(real32), real(real64), integer(int32) nor "
                       "integer(int64)",
                       name));
  }
}

/// The caller's memory as it lies: column-major, with strides where it is a section, on a GPU where
/// OpenACC's or OpenMP's use_device gives such an address.
class Array {
 public:
  Array(const CFI_cdesc_t* given, const char* name) : present_(given != nullptr) {
    if (!present_) return;
    TESSERA_CHECK(given->rank <= TESSERA_MAX_RANK, Code::invalid_argument,
                  fmt::format("`{}` has rank {}; at most {} is possible", name,
                              static_cast<int>(given->rank), int{TESSERA_MAX_RANK}));
    array_.data = given->base_addr;
    array_.dtype = dtype_of(*given, name);
    array_.rank = given->rank;
    array_.order = TESSERA_COLUMN_MAJOR;
    array_.device.type = TESSERA_DEVICE_OF_ADDRESS;
    for (int i = 0; i < given->rank; ++i) {
      array_.dims[i] = given->dim[i].extent;
      array_.strides[i] = given->dim[i].sm / static_cast<CFI_index_t>(given->elem_len);
    }
  }
  const tessera_array* get() const { return present_ ? &array_ : nullptr; }

 private:
  bool present_;
  tessera_array array_{};
};

/// Passes the code of a function of the C interface, which has kept its message, through a guard.
template <typename Body>
tessera_code forward(Body&& body) {
  tessera_code code = TESSERA_OK;
  const tessera_code own = c::as_code([&] { code = body(); });
  return own != TESSERA_OK ? own : code;
}

}  // namespace
}  // namespace tessera::fortran

using tessera::fortran::Array;
using tessera::fortran::forward;

extern "C" {

tessera_code tessera_fortran_all_reduce(tessera_group* group, const CFI_cdesc_t* data,
                                        int reduction) {
  return forward([&] {
    return tessera_all_reduce(group, Array(data, "data").get(),
                              static_cast<tessera_reduction>(reduction));
  });
}

tessera_code tessera_fortran_broadcast(tessera_group* group, const CFI_cdesc_t* data, int root) {
  return forward([&] { return tessera_broadcast(group, Array(data, "data").get(), root); });
}

tessera_code tessera_fortran_all_gather(tessera_group* group, const CFI_cdesc_t* send,
                                        const CFI_cdesc_t* receive) {
  return forward([&] {
    return tessera_all_gather(group, Array(send, "send").get(), Array(receive, "receive").get());
  });
}

tessera_code tessera_fortran_reduce_scatter(tessera_group* group, const CFI_cdesc_t* send,
                                            const CFI_cdesc_t* receive, int reduction) {
  return forward([&] {
    return tessera_reduce_scatter(group, Array(send, "send").get(), Array(receive, "receive").get(),
                                  static_cast<tessera_reduction>(reduction));
  });
}

tessera_code tessera_fortran_all_to_all(tessera_group* group, const CFI_cdesc_t* send,
                                        const CFI_cdesc_t* receive) {
  return forward([&] {
    return tessera_all_to_all(group, Array(send, "send").get(), Array(receive, "receive").get());
  });
}

tessera_code tessera_fortran_send(tessera_group* group, const CFI_cdesc_t* data, int to, int tag) {
  return forward([&] { return tessera_send(group, Array(data, "data").get(), to, tag); });
}

tessera_code tessera_fortran_receive(tessera_group* group, const CFI_cdesc_t* data, int from,
                                     int tag) {
  return forward([&] { return tessera_receive(group, Array(data, "data").get(), from, tag); });
}

tessera_code tessera_fortran_optimizer_create(tessera_runtime* runtime, const char* config,
                                              tessera_group* group, int reduction,
                                              tessera_optimizer** optimizer) {
  tessera_optimizer_options options{};
  options.struct_size = sizeof options;
  options.config = config;
  options.group = group;
  options.reduction = static_cast<tessera_reduction>(reduction);
  return tessera_optimizer_create(runtime, &options, optimizer);
}

tessera_code tessera_fortran_optimizer_add(tessera_optimizer* optimizer, const char* name,
                                           const CFI_cdesc_t* parameter,
                                           const CFI_cdesc_t* gradient) {
  return forward([&] {
    return tessera_optimizer_add(optimizer, name, Array(parameter, "parameter").get(),
                                 Array(gradient, "gradient").get(), nullptr);
  });
}

tessera_code tessera_fortran_network_create(tessera_runtime* runtime, const char* config,
                                            tessera_group* group, const tessera_layer* layers,
                                            int layer_count, tessera_network** network) {
  tessera_network_options options{};
  options.struct_size = sizeof options;
  options.config = config;
  options.group = group;
  options.layers = layers;
  options.layer_count = layer_count;
  return tessera_network_create(runtime, &options, network);
}

tessera_code tessera_fortran_network_observe(tessera_network* network, const CFI_cdesc_t* inputs,
                                             const CFI_cdesc_t* targets) {
  return forward([&] {
    return tessera_network_observe(network, Array(inputs, "inputs").get(),
                                   Array(targets, "targets").get());
  });
}

tessera_code tessera_fortran_network_train_step(tessera_network* network, const CFI_cdesc_t* inputs,
                                                const CFI_cdesc_t* targets, double* loss) {
  return forward([&] {
    return tessera_network_train_step(network, Array(inputs, "inputs").get(),
                                      Array(targets, "targets").get(), loss);
  });
}

tessera_code tessera_fortran_network_train_step_with(tessera_network* network,
                                                     const CFI_cdesc_t* inputs,
                                                     tessera_loss_function function, void* user,
                                                     double* loss) {
  return forward([&] {
    return tessera_network_train_step_with(network, Array(inputs, "inputs").get(), function, user,
                                           loss);
  });
}

tessera_code tessera_fortran_network_evaluate(tessera_network* network, const CFI_cdesc_t* inputs,
                                              const CFI_cdesc_t* targets, double* loss) {
  return forward([&] {
    return tessera_network_evaluate(network, Array(inputs, "inputs").get(),
                                    Array(targets, "targets").get(), loss);
  });
}

tessera_code tessera_fortran_network_predict(tessera_network* network, const CFI_cdesc_t* inputs,
                                             const CFI_cdesc_t* outputs) {
  return forward([&] {
    return tessera_network_predict(network, Array(inputs, "inputs").get(),
                                   Array(outputs, "outputs").get());
  });
}

}  // extern "C"
