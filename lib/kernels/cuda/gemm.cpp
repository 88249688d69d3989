// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLASLt: row-major problems as column-major ones, epilogues, and a cache of
// the algorithms that were chosen.
#include "tessera/kernels/gemm.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cublasLt.h>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

using tessera::cuda::check_cuda;
using tessera::cuda::DeviceGuard;

/// Its GELU is the tanh approximation. The operands change places, and with them their sums.
cublasLtEpilogue_t epilogue_of(const Gemm& args) {
  if (args.epilogue == GemmEpilogue::activation)
    return args.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  if (args.epilogue == GemmEpilogue::activation_gradient) return CUBLASLT_EPILOGUE_DGELU;
  if (args.b_sums != nullptr) return CUBLASLT_EPILOGUE_BGRADA;
  if (args.a_sums != nullptr) return CUBLASLT_EPILOGUE_BGRADB;
  return args.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/// The vector that is added, or else the one that sums are written to.
const void* vector_of(const Gemm& args) {
  if (args.bias != nullptr) return args.bias;
  return args.a_sums != nullptr ? args.a_sums : args.b_sums;
}

bool more_than_bias(const Gemm& args) {
  return args.epilogue != GemmEpilogue::none || args.a_sums != nullptr || args.b_sums != nullptr;
}

std::string describe(const Gemm& args) {
  return fmt::format("m {}, n {}, k {}, {}{}, lda {}, ldb {}, ldc {}, {} to {}, epilogue {}",
                     args.m, args.n, args.k, args.transpose_a ? 't' : 'n',
                     args.transpose_b ? 't' : 'n', args.lda, args.ldb, args.ldc,
                     to_string(args.input_type), to_string(args.output_type),
                     static_cast<int>(epilogue_of(args)));
}

void check(cublasStatus_t status, const char* what, const Gemm& args) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  fail(status == CUBLAS_STATUS_ALLOC_FAILED ? Code::out_of_memory : Code::cuda,
       fmt::format("cuBLASLt: {} failed for the product {}: {} ({})", what, describe(args),
                   cublasLtGetStatusString(status), cublasLtGetStatusName(status)));
}

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::fp16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// What cuBLASLt may rely on; it distinguishes up to 256 bytes.
std::uint32_t alignment(const void* data) {
  return 1u << std::min(8, std::countr_zero(reinterpret_cast<std::uintptr_t>(data)));
}

/// Arrays and rows begin at 16 bytes, as its fused kernels want them. GELU's argument needs rows of
/// a multiple of 8 elements, which is no less.
bool aligned_for_epilogue(const Gemm& args) {
  const void* arrays[] = {args.a, args.b, args.c, args.argument, vector_of(args)};
  const auto in = static_cast<std::int64_t>(size_of(args.input_type));
  const auto out = static_cast<std::int64_t>(size_of(args.output_type));
  return std::ranges::all_of(arrays, [](const void* data) { return alignment(data) >= 16; }) &&
         args.lda * in % 16 == 0 && args.ldb * in % 16 == 0 && args.ldc * out % 16 == 0 &&
         (args.argument == nullptr || args.n % 8 == 0);
}

/// What cuBLASLt has an epilogue for, and what may be asked of it.
bool has_epilogue(const Gemm& args) {
  if (!more_than_bias(args) || args.m == 0 || args.n == 0 || args.k == 0) return false;
  if (args.epilogue != GemmEpilogue::none && args.function != Activation::gelu_tanh) return false;
  // Its sums overwrite.
  return (args.epilogue != GemmEpilogue::none || args.beta == 0) && aligned_for_epilogue(args);
}

/// One problem as cuBLASLt takes it. A row-major matrix is the transpose of a column-major one, so
/// c^T = op(b)^T op(a)^T is computed: b is the left operand, n the number of rows.
class Problem {
 public:
  Problem(const Gemm& args, bool tf32) : args_(args) {
    const bool fast = tf32 && args.input_type == DType::fp32;
    check(cublasLtMatmulDescInit(
              &operation_, fast ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "describing the operation", args);
    set(CUBLASLT_MATMUL_DESC_TRANSA, args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_TRANSB, args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(args));
    if (const void* vector = vector_of(args)) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector);
    if (args.argument != nullptr) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, args.argument);
      set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, args.n);
    }
    init(left_, args.input_type, args.transpose_b ? args.k : args.n,
         args.transpose_b ? args.n : args.k, args.ldb);
    init(right_, args.input_type, args.transpose_a ? args.m : args.k,
         args.transpose_a ? args.k : args.m, args.lda);
    init(result_, args.output_type, args.n, args.m, args.ldc);
  }

  /// The heuristic's candidates, best first, at most as many as there is room for; none where it
  /// has no kernel.
  std::size_t candidates(cublasLtHandle_t handle, std::size_t workspace,
                         std::span<cublasLtMatmulHeuristicResult_t> found) {
    cublasLtMatmulPreferenceOpaque_t preference;
    check(cublasLtMatmulPreferenceInit(&preference), "describing preferences", args_);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
            "setting a preference", args_);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace});
    // Parts of a sum that is split along k meet in fp32, not in the type of the result.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(args_.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(args_.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(args_.c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
           std::min(alignment(args_.c), alignment(vector_of(args_))));
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle, &operation_, &left_, &right_, &result_, &result_, &preference,
        static_cast<int>(found.size()), found.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return 0;
    check(status, "choosing an algorithm", args_);
    return static_cast<std::size_t>(count);
  }

  /// d = alpha op(a) op(b) + beta c, and the epilogue
  void run(cublasLtHandle_t handle, const cublasLtMatmulAlgo_t& algorithm, void* d,
           const Buffer& workspace, cudaStream_t stream) {
    check(cublasLtMatmul(handle, &operation_, &args_.alpha, args_.b, &left_, args_.a, &right_,
                         &args_.beta, args_.c, &result_, d, &result_, &algorithm, workspace.data(),
                         workspace.bytes(), stream),
          "enqueueing", args_);
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(&operation_, attribute, &value, sizeof(value)),
          "describing the operation", args_);
  }
  void init(cublasLtMatrixLayoutOpaque_t& layout, DType dtype, std::int64_t rows,
            std::int64_t columns, std::int64_t stride) {
    check(cublasLtMatrixLayoutInit(&layout, cuda_type(dtype), static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(columns), stride),
          "describing a matrix", args_);
  }

  const Gemm& args_;
  cublasLtMatmulDescOpaque_t operation_;
  cublasLtMatrixLayoutOpaque_t left_, right_, result_;
};

struct Algorithm {
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspace;  // bytes
};

/// The library's handle for one device with the algorithms chosen on it. Thread-safe.
class Library {
 public:
  /// Of the stream's device, for the life of the process: at its end the driver may be gone before
  /// our statics.
  static Library& of(const Stream& stream, const Gemm& args) {
    static auto* mutex = new std::mutex;
    static auto* libraries = new std::map<int, std::unique_ptr<Library>>;
    const std::lock_guard lock(*mutex);
    auto& library = (*libraries)[stream.device().index];
    if (library == nullptr) library = std::make_unique<Library>(stream, args);
    return *library;
  }

  Library(const Stream& stream, const Gemm& args) {
    check(cublasLtCreate(&handle_), "starting", args);
    int major = 0;
    check_cuda(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, stream.device().index),
        "asking for the compute capability");
    workspace_ = std::size_t{major >= 9 ? 32u : 4u} << 20;  // as cuBLAS itself takes
  }

  cublasLtHandle_t handle() const { return handle_; }

  /// Nothing where cuBLASLt has no kernel.
  std::optional<Algorithm> choose(const Stream& stream, Problem& problem, const Gemm& args,
                                  const GemmOptions& options) {
    const Key key = key_of(args, options);
    {
      const std::lock_guard lock(mutex_);
      const auto found = chosen_.find(key);
      if (found != chosen_.end()) return found->second;
    }
    const std::optional<Algorithm> choice =
        options.measure ? fastest(stream, problem, args) : first(problem);
    const std::lock_guard lock(mutex_);
    // Shapes of a run are few; the lengths in generation are many, and cheap to choose for again.
    if (chosen_.size() >= kMostChoices) chosen_.clear();
    return chosen_.emplace(key, choice).first->second;  // of two threads, the first one's
  }

 private:
  static constexpr std::size_t kMostChoices = 4096;
  static constexpr std::size_t kMeasured = 8;
  using Key = std::array<std::int64_t, 9>;

  static Key key_of(const Gemm& args, const GemmOptions& options) {
    std::int64_t rest = static_cast<std::int64_t>(epilogue_of(args));
    for (const bool bit : {args.transpose_a, args.transpose_b, options.tf32, options.measure})
      rest = rest * 2 + (bit ? 1 : 0);
    for (const DType dtype : {args.input_type, args.output_type})
      rest = rest * 16 + static_cast<std::int64_t>(dtype);
    std::int64_t alignments = 0;
    for (const void* data : {args.a, args.b, static_cast<const void*>(args.c), vector_of(args)})
      alignments = alignments * 512 + alignment(data);
    return {args.m,   args.n,     args.k,
            args.lda, args.ldb,   args.ldc,
            rest,     alignments, alignment(args.argument)};
  }

  std::optional<Algorithm> first(Problem& problem) const {
    cublasLtMatmulHeuristicResult_t best[1];
    if (problem.candidates(handle_, workspace_, best) == 0) return std::nullopt;
    return Algorithm{best[0].algo, best[0].workspaceSize};
  }

  /// Runs the candidates into scratch memory and takes the fastest. Waits for the stream.
  std::optional<Algorithm> fastest(const Stream& stream, Problem& problem, const Gemm& args) const {
    std::array<cublasLtMatmulHeuristicResult_t, kMeasured> found;
    const std::size_t count = problem.candidates(handle_, workspace_, found);
    if (count == 0) return std::nullopt;
    const auto elements = static_cast<std::size_t>((args.m - 1) * args.ldc + args.n);
    const Buffer scratch =
        allocate(elements * size_of(args.output_type) + 256, stream.device(), Purpose::workspace);
    // As aligned as c: an algorithm may need no less, and should get no more.
    void* target = scratch.as<std::byte>() + alignment(args.c) % 256;
    std::size_t best = 0;
    double least = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const double time = seconds(stream, problem, found[i], target);
      if (i == 0 || time < least) {
        best = i;
        least = time;
      }
    }
    return Algorithm{found[best].algo, found[best].workspaceSize};
  }
  double seconds(const Stream& stream, Problem& problem,
                 const cublasLtMatmulHeuristicResult_t& candidate, void* target) const {
    constexpr int kRuns = 10;
    const Buffer workspace = allocate(candidate.workspaceSize, stream.device(), Purpose::workspace);
    const auto handle = static_cast<cudaStream_t>(stream.native_handle());
    const auto run = [&] { problem.run(handle_, candidate.algo, target, workspace, handle); };
    run();  // loads the kernel
    stream.synchronize();
    const Timer timer;
    for (int i = 0; i < kRuns; ++i) run();
    stream.synchronize();
    return timer.seconds();
  }

  cublasLtHandle_t handle_ = nullptr;
  std::size_t workspace_;  // bytes that an algorithm may use
  std::mutex mutex_;
  std::map<Key, std::optional<Algorithm>> chosen_;
};

/// False: cuBLASLt has no kernel.
bool try_multiply(const Stream& stream, const Gemm& args) {
  const GemmOptions options = gemm_options();
  Library& library = Library::of(stream, args);
  Problem problem(args, options.tf32);
  const auto algorithm = library.choose(stream, problem, args, options);
  if (!algorithm) return false;
  const Buffer workspace = allocate(algorithm->workspace, stream.device(), Purpose::workspace);
  problem.run(library.handle(), algorithm->algorithm, args.c, workspace,
              static_cast<cudaStream_t>(stream.native_handle()));
  return true;
}

void multiply(const Stream& stream, const Gemm& args) {
  TESSERA_CHECK(try_multiply(stream, args), Code::cuda,
                fmt::format("cuBLASLt has no algorithm for the product {}", describe(args)));
}

/// A sum over nothing, which cuBLASLt does not take: the product of a column and a row of zeros.
void multiply_empty(const Stream& stream, Gemm args) {
  const std::size_t bytes =
      static_cast<std::size_t>(std::max(args.m, args.n)) * size_of(args.input_type);
  const Buffer zeros = allocate(bytes, stream.device(), Purpose::workspace);
  stream.fill_zero(zeros.data(), bytes);
  args.a = args.b = zeros.data();
  args.k = args.lda = 1;
  args.ldb = args.n;
  args.transpose_a = args.transpose_b = false;
  multiply(stream, args);
}

/// cuBLASLt adds a bias of the type of the result: `bias` holds one if it has to be another.
Gemm with_bias_of_result(const Stream& stream, Gemm args, Buffer& bias) {
  if (args.bias == nullptr || args.output_type == args.input_type) return args;
  bias = allocate(static_cast<std::size_t>(args.n) * size_of(args.output_type), stream.device(),
                  Purpose::workspace);
  cast(stream, args.bias, args.input_type, bias.data(), args.output_type, args.n);
  args.bias = bias.data();
  return args;
}

}  // namespace

void gemm(const Stream& stream, const Gemm& args) {
  const DeviceGuard device(stream.device().index);
  const StreamScope scope(stream);  // of the workspace
  Buffer bias;
  const Gemm full = with_bias_of_result(stream, args, bias);
  if (args.k == 0)
    multiply_empty(stream, full);
  else
    multiply(stream, full);
}

bool gemm_with_epilogue(const Stream& stream, const Gemm& args) {
  if (!has_epilogue(args)) return false;
  const DeviceGuard device(stream.device().index);
  const StreamScope scope(stream);
  Buffer bias;
  return try_multiply(stream, with_bias_of_result(stream, args, bias));
}

}  // namespace tessera::kernels::cuda
