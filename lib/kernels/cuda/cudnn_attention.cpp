// SPDX-License-Identifier: Apache-2.0
// Attention by cuDNN: which calls it is asked for, and a cache of its plans.
#include <bit>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"
#include "kernels/cuda/attention_padding.hpp"
#include "kernels/cuda/cudnn_attention_graph.hpp"
#include "kernels/cuda/cudnn_plan.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/workspace.hpp"

namespace tessera::kernels::cuda {
namespace {

using cudnn::AttentionShape;
using cudnn::Strides;
using tessera::cuda::check_cuda;
using tessera::cuda::DeviceGuard;

// Before it, sums of lengths that are no multiple of 128 need a mask, and Blackwell has no backward
// pass whose bits repeat.
constexpr std::size_t kOldest = 91800;

// Before Blackwell the backward pass whose bits repeat keeps a matrix of queries times keys.
constexpr std::size_t kMostWorkspace = std::size_t{512} << 20;

enum class Pass : std::uint8_t { forward, backward };

bool rows_fit(const void* data, std::int64_t row_stride, std::int64_t batch_stride) {
  return std::bit_cast<std::uintptr_t>(data) % 16 == 0 && row_stride % 8 == 0 &&
         batch_stride % 8 == 0;
}
bool arrays_fit(const AttentionForward& args) {
  return rows_fit(args.q, args.q_row_stride, args.q_batch_stride) &&
         rows_fit(args.k, args.k_row_stride, args.k_batch_stride) &&
         rows_fit(args.v, args.v_row_stride, args.v_batch_stride) &&
         rows_fit(args.y, args.y_row_stride, args.y_batch_stride);
}
bool arrays_fit(const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  return arrays_fit(forward) && rows_fit(args.dy, forward.y_row_stride, forward.y_batch_stride) &&
         rows_fit(args.dq, forward.q_row_stride, forward.q_batch_stride) &&
         rows_fit(args.dk, forward.k_row_stride, forward.k_batch_stride) &&
         rows_fit(args.dv, forward.v_row_stride, forward.v_batch_stride);
}

/// Why cuDNN is not asked at all; empty: it is.
std::string objection(const AttentionForward& args, bool arrays_fit) {
  if (cudnnGetVersion() < kOldest)
    return fmt::format("the library is {}, and 9.18 is the oldest that will do", cudnn_version());
  if (size_of(args.dtype) != 2)
    return fmt::format("it takes bf16 and fp16, not {}", to_string(args.dtype));
  if (args.dropout > 0) return "its dropout would not fall on the same elements as elsewhere";
  if (args.head_dim % 8 != 0)
    return fmt::format("head dimension {} is no multiple of 8", args.head_dim);
  if (args.queries < 2) return "there is one query";
  return arrays_fit ? "" : "arrays or rows do not begin at multiples of 16 bytes";
}

/// A plan takes up to a second to make. Sequences of training come in few lengths, and of whole
/// tiles; prompts and what is generated after them do not.
bool comes_again(const AttentionForward& args) {
  return args.queries == args.keys && args.queries % 64 == 0;
}

std::string describe(const AttentionForward& args) {
  return fmt::format("batch {}, heads {}/{}, queries {}, keys {}, head dimension {}, {}{}{}",
                     args.batch, args.heads, args.kv_heads, args.queries, args.keys, args.head_dim,
                     to_string(args.dtype), args.causal ? ", causal" : "",
                     args.lengths != nullptr ? ", rows of different lengths" : "");
}

/// Of copies without the padding.
Strides packed_queries(const AttentionForward& args) {
  const std::int64_t row = args.heads * args.head_dim;
  return {row, args.queries * row};
}
Strides packed_keys(const AttentionForward& args) {
  const std::int64_t row = args.kv_heads * args.head_dim;
  return {row, args.keys * row};
}

AttentionShape shape_of(Pass pass, const AttentionForward& args) {
  AttentionShape shape(args);
  if (!shape.padded) return shape;
  shape.k = shape.v = packed_keys(args);
  if (pass == Pass::backward) shape.q = shape.dy = packed_queries(args);
  return shape;
}

/// The library's handle for one device with the plans made on it. Thread-safe.
class Library {
 public:
  /// For the life of the process: at its end the driver may be gone before our statics.
  static Library& of(const Stream& stream) {
    static auto* mutex = new std::mutex;
    static auto* libraries = new std::map<int, std::unique_ptr<Library>>;
    const std::lock_guard lock(*mutex);
    auto& library = (*libraries)[stream.device().index];
    if (library == nullptr) library = std::make_unique<Library>(stream.device().index);
    return *library;
  }
  explicit Library(int device) {
    int major = 0, minor = 0;
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
               "asking for the compute capability");
    check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
               "asking for the compute capability");
    target_.capability = 10 * major + minor;
  }

  struct Choice {
    std::unique_ptr<const cudnn::Plan> plan;
    std::string refusal;  // where there is no plan
  };
  /// Made at the first call of its kind; a refusal is remembered.
  const Choice& choose(Pass pass, const AttentionForward& args) {
    const AttentionShape shape = shape_of(pass, args);
    const std::lock_guard lock(mutex_);
    const auto found = choices_.find({pass, shape});
    if (found != choices_.end()) return found->second;
    Choice choice = make(pass, shape);
    if (choice.plan == nullptr)
      log_warning_once(
          fmt::format("no attention of cuDNN for {}: {}", describe(args), choice.refusal));
    return choices_[{pass, shape}] = std::move(choice);
  }

  void execute(const Stream& stream, const cudnn::Plan& plan,
               std::span<const cudnn::Argument> arguments) {
    const Buffer workspace = allocate_workspace(stream, plan.workspace());
    const std::lock_guard lock(mutex_);  // the handle has one stream
    use(static_cast<cudaStream_t>(stream.native_handle()));
    plan.execute(handle_, arguments, workspace.data());
  }

 private:
  /// Not told again what it knows: a change may make streams wait for each other.
  void use(cudaStream_t stream) {
    if (stream == stream_) return;
    cudnn::check(cudnnSetStream(handle_, stream), "choosing the stream");
    stream_ = stream;
  }

  Choice make(Pass pass, const AttentionShape& shape) {
    try {
      if (handle_ == nullptr) cudnn::check(cudnnCreate(&handle_), "starting");
      const bool forward = pass == Pass::forward;
      const cudnn::Descriptor graph =
          forward ? forward_graph(shape, handle_) : backward_graph(shape, handle_);
      const cudnn::Descriptor engine =
          forward ? first_engine(graph, target_) : first_repeatable_engine(graph, target_);
      return {std::make_unique<const cudnn::Plan>(engine), ""};
    } catch (const Error& error) {
      if (error.code() == Code::out_of_memory) throw;
      return {nullptr, error.what()};
    }
  }

  cudnnHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudnn::Target target_{};
  std::mutex mutex_;
  std::map<std::pair<Pass, AttentionShape>, Choice> choices_;
};

/// The plan for a call; nullptr where own kernels shall compute it. Throws where they must not.
const cudnn::Plan* plan_for(const Stream& stream, Pass pass, const AttentionForward& args,
                            bool fits) {
  const bool demanded = attention_kernels() == AttentionKernels::cudnn;
  if (attention_kernels() == AttentionKernels::own || (!demanded && !comes_again(args)))
    return nullptr;
  std::string reason = objection(args, fits);
  if (reason.empty()) {
    const auto& [plan, refusal] = Library::of(stream).choose(pass, args);
    const bool small = plan != nullptr && plan->workspace() <= kMostWorkspace;
    if (small || (demanded && plan != nullptr)) return plan.get();
    reason = refusal;
  }
  TESSERA_CHECK(!demanded, Code::not_supported,
                fmt::format("cuDNN's attention was asked for, and cannot be had for {}: {}; let "
                            "the kernels be chosen (run.attention: auto)",
                            describe(args), reason));
  return nullptr;
}

constexpr float kScalarOne = 1, kScalarMinusInfinity = -std::numeric_limits<float>::infinity();

/// Numbers of positions as cuDNN's graphs take them, on the host.
struct Positions {
  explicit Positions(const AttentionForward& args)
      : queries(static_cast<std::int32_t>(args.queries)),
        keys(static_cast<std::int32_t>(args.keys)) {}
  std::int32_t queries, keys;
};

/// What both passes have in common.
std::vector<cudnn::Argument> arguments_of(const AttentionForward& args,
                                          const Positions& positions) {
  std::vector<cudnn::Argument> arguments{{cudnn::kQ, args.q},     {cudnn::kK, args.k},
                                         {cudnn::kV, args.v},     {cudnn::kY, args.y},
                                         {cudnn::kLse, args.lse}, {cudnn::kScale, &args.scale}};
  if (args.lengths != nullptr) arguments.push_back({cudnn::kLengths, args.lengths});
  if (args.causal || args.lengths != nullptr)
    arguments.push_back({cudnn::kMinusInfinity, &kScalarMinusInfinity});
  if (AttentionShape(args).shifted()) {
    arguments.push_back({cudnn::kQueries, &positions.queries});
    arguments.push_back({cudnn::kKeys, &positions.keys});
  }
  return arguments;
}

Buffer allocate_rows(const Stream& stream, const AttentionForward& args) {
  const auto rows = static_cast<std::size_t>(args.batch * args.heads * args.queries);
  return allocate_workspace(stream, rows * sizeof(float));
}

AttentionPadding padding_of(const AttentionForward& args) {
  AttentionPadding padding{};
  padding.lengths = args.lengths;
  padding.batch = args.batch;
  padding.positions = args.queries;
  return padding;
}

/// An array of the call, and the strides of it and of its copy.
struct Source {
  const void*& data;
  Strides strides, packed;
};

/// cuDNN does not say that it reads nothing behind a length, and what is multiplied by a
/// probability of 0 is NaN if it was: lets `args` have its lengths in their range and `sources`
/// point to copies with zeros in the padding, which the result holds.
Buffer leave_padding_out(const Stream& stream, AttentionForward& args,
                         std::initializer_list<Source> sources) {
  const auto lengths = static_cast<std::size_t>(round_up(args.batch, 4)) * sizeof(std::int32_t);
  const auto bytes_of = [&](const Source& source) {
    return static_cast<std::size_t>(args.batch * source.packed.batch) * size_of(args.dtype);
  };
  std::size_t bytes = lengths;
  for (const Source& source : sources) bytes += bytes_of(source);
  Buffer copies = allocate_workspace(stream, bytes);
  AttentionPadding padding = padding_of(args);
  padding.in_range = copies.as<std::int32_t>();
  std::byte* place = copies.as<std::byte>() + lengths;
  for (const Source& source : sources) {
    padding.arrays[padding.count++] = {
        source.data,       source.strides.row,  source.strides.batch, place,
        source.packed.row, source.packed.batch, source.packed.row};
    source.data = place;
    place += bytes_of(source);
  }
  attention_padding(stream, padding);
  args.lengths = padding.in_range;
  return copies;
}

/// Results of cuDNN are not defined in the padding.
void clear_padding(const Stream& stream, const AttentionForward& args) {
  AttentionPadding padding = padding_of(args);
  padding.arrays[padding.count++] = {
      nullptr, 0, 0, args.y, args.y_row_stride, args.y_batch_stride, packed_queries(args).row};
  padding.lse = args.lse;
  padding.heads = args.heads;
  attention_padding(stream, padding);
}
void clear_padding(const Stream& stream, const AttentionBackward& args) {
  const AttentionForward& forward = args.forward;
  AttentionPadding padding = padding_of(forward);
  const auto add = [&](void* gradient, std::int64_t row, std::int64_t batch, std::int64_t width) {
    padding.arrays[padding.count++] = {nullptr, 0, 0, gradient, row, batch, width};
  };
  const std::int64_t queries = packed_queries(forward).row, keys = packed_keys(forward).row;
  add(args.dq, forward.q_row_stride, forward.q_batch_stride, queries);
  add(args.dk, forward.k_row_stride, forward.k_batch_stride, keys);
  add(args.dv, forward.v_row_stride, forward.v_batch_stride, keys);
  attention_padding(stream, padding);
}

}  // namespace

std::string cudnn_version() {
  const std::size_t version = cudnnGetVersion();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

bool cudnn_attention_forward(const Stream& stream, const AttentionForward& args) {
  const DeviceGuard device(stream.device().index);
  const cudnn::Plan* plan = plan_for(stream, Pass::forward, args, arrays_fit(args));
  if (plan == nullptr) return false;
  // The same plan with and without lse: the same bits.
  AttentionForward full = args;
  const Buffer unwanted = args.lse == nullptr ? allocate_rows(stream, args) : Buffer();
  if (args.lse == nullptr) full.lse = unwanted.as<float>();
  Buffer copies;
  if (args.lengths != nullptr) {
    const Strides packed = packed_keys(args);
    copies = leave_padding_out(stream, full,
                               {{full.k, {args.k_row_stride, args.k_batch_stride}, packed},
                                {full.v, {args.v_row_stride, args.v_batch_stride}, packed}});
  }
  const Positions positions(full);
  Library::of(stream).execute(stream, *plan, arguments_of(full, positions));
  if (args.lengths != nullptr) clear_padding(stream, args);
  return true;
}

bool cudnn_attention_backward(const Stream& stream, const AttentionBackward& args) {
  const DeviceGuard device(stream.device().index);
  AttentionForward forward = args.forward;
  const cudnn::Plan* plan = plan_for(stream, Pass::backward, forward, arrays_fit(args));
  if (plan == nullptr) return false;
  const Buffer shifts = allocate_rows(stream, forward);
  const void* dy = args.dy;
  Buffer copies;
  if (forward.lengths != nullptr) {
    const Strides queries = packed_queries(forward), keys = packed_keys(forward);
    copies =
        leave_padding_out(stream, forward,
                          {{forward.q, {forward.q_row_stride, forward.q_batch_stride}, queries},
                           {forward.k, {forward.k_row_stride, forward.k_batch_stride}, keys},
                           {forward.v, {forward.v_row_stride, forward.v_batch_stride}, keys},
                           {dy, {forward.y_row_stride, forward.y_batch_stride}, queries}});
  }
  const Positions positions(forward);
  std::vector<cudnn::Argument> arguments = arguments_of(forward, positions);
  for (const cudnn::Argument& argument : {cudnn::Argument{cudnn::kDy, dy},
                                          {cudnn::kDq, args.dq},
                                          {cudnn::kDk, args.dk},
                                          {cudnn::kDv, args.dv},
                                          {cudnn::kShifts, shifts.data()},
                                          {cudnn::kOne, &kScalarOne}})
    arguments.push_back(argument);
  Library::of(stream).execute(stream, *plan, arguments);
  if (forward.lengths != nullptr) clear_padding(stream, args);
  return true;
}

}  // namespace tessera::kernels::cuda
