// SPDX-License-Identifier: Apache-2.0
// oneDNN's matmul primitive (2.6 and 3.x), cached by shape because creating one takes as long as a
// small product.
#include "kernels/cpu/matmul.hpp"

#include <array>
#include <bit>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

#include <fmt/format.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/device/buffer.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/signal_shelter.hpp"

namespace tessera::kernels::cpu {
namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine instance(dnnl::engine::kind::cpu, 0);
  return instance;
}

memory::data_type to_dnnl(DType dtype) {
  return dtype == DType::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

// A primitive and the layouts of its arguments.
struct Product {
  memory::desc a, b, c, bias, scratch;
  int bias_argument = 0;
  dnnl::matmul primitive;
};

// Everything that a primitive depends on. oneDNN divides the work by thread when it creates one.
using Key = std::array<std::int64_t, 13>;

Key key_of(const Gemm& args) {
  return {args.m,
          args.n,
          args.k,
          args.lda,
          args.ldb,
          args.ldc,
          args.transpose_a,
          args.transpose_b,
          args.bias != nullptr,
          std::bit_cast<std::int32_t>(args.alpha),
          args.beta != 0,
          (static_cast<std::int64_t>(args.input_type) << 8) |
              static_cast<std::int64_t>(args.output_type),
          threads()};
}

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t hash = 0;
    for (const std::int64_t word : key) hash = mix(hash, static_cast<std::uint64_t>(word));
    return hash;
  }
};

memory::desc matrix(std::int64_t rows, std::int64_t columns, DType dtype, bool transposed,
                    std::int64_t leading) {
  const memory::dims strides = transposed ? memory::dims{1, leading} : memory::dims{leading, 1};
  return {{rows, columns}, to_dnnl(dtype), strides};
}

void append_alpha(dnnl::post_ops& after, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
  after.append_eltwise(dnnl::algorithm::eltwise_linear, alpha, 0);
#else
  after.append_eltwise(1, dnnl::algorithm::eltwise_linear, alpha, 0);
#endif
}

dnnl::matmul::primitive_desc describe(const Product& product, bool bias_inside,
                                      const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  if (bias_inside) return {engine(), product.a, product.b, product.bias, product.c, attributes};
  return {engine(), product.a, product.b, product.c, attributes};
#else
  if (bias_inside) return {{product.a, product.b, product.bias, product.c}, attributes, engine()};
  return {{product.a, product.b, product.c}, attributes, engine()};
#endif
}

std::shared_ptr<const Product> create(const Gemm& args) {
  auto product = std::make_shared<Product>();
  product->a = matrix(args.m, args.k, args.input_type, args.transpose_a, args.lda);
  product->b = matrix(args.k, args.n, args.input_type, args.transpose_b, args.ldb);
  product->c = matrix(args.m, args.n, args.output_type, false, args.ldc);
  product->bias = matrix(1, args.n, args.input_type, false, args.n);
  const bool scaled = args.alpha != 1;
  dnnl::post_ops after;
  if (scaled) append_alpha(after, args.alpha);
  if (args.beta != 0) after.append_sum(1);
  product->bias_argument = DNNL_ARG_BIAS;
  if (args.bias && scaled) {  // alpha does not multiply the bias, so it comes after the scaling
    product->bias_argument = DNNL_ARG_ATTR_MULTIPLE_POST_OP(after.len()) | DNNL_ARG_SRC_1;
    after.append_binary(dnnl::algorithm::binary_add, product->bias);
  }
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(after);
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto description = describe(*product, args.bias && !scaled, attributes);
  product->scratch = description.scratchpad_desc();
  product->primitive = dnnl::matmul(description);
  return product;
}

// Least recently used products leave first. Shapes are few in training; in generation the number
// of keys grows with every token, which must not grow the memory.
class ProductCache {
 public:
  std::shared_ptr<const Product> find_or_create(const Gemm& args) {
    const Key key = key_of(args);
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find(key); found != index_.end()) {
      order_.splice(order_.begin(), order_, found->second);
      return found->second->second;
    }
    order_.emplace_front(key, create(args));
    index_[key] = order_.begin();
    if (order_.size() > kCapacity) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    return order_.front().second;
  }

 private:
  static constexpr std::size_t kCapacity = 256;
  using Order = std::list<std::pair<Key, std::shared_ptr<const Product>>>;

  std::mutex mutex_;
  Order order_;
  std::unordered_map<Key, Order::iterator, KeyHash> index_;
};

void execute(const Product& product, const Gemm& args) {
  thread_local dnnl::stream stream(engine());
  const auto wrap = [](const memory::desc& description, const void* data) {
    return memory(description, engine(), const_cast<void*>(data));
  };
  const Buffer scratch = allocate(product.scratch.get_size(), Device{}, Purpose::workspace);
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, wrap(product.a, args.a)},
      {DNNL_ARG_WEIGHTS, wrap(product.b, args.b)},
      {DNNL_ARG_DST, wrap(product.c, args.c)},
      {DNNL_ARG_SCRATCHPAD, wrap(product.scratch, scratch.data())}};
  if (args.bias) arguments.emplace(product.bias_argument, wrap(product.bias, args.bias));
  const SignalShelter shelter;
  product.primitive.execute(stream, arguments);
  stream.wait();
}

// Regions of this thread are its own while one lives.
class Alone {
 public:
  explicit Alone(bool wanted) : before_(wanted ? threads() : 1) {
    if (before_ > 1) set_threads(1);
  }
  ~Alone() {
    if (before_ > 1) set_threads(before_);
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;

 private:
  int before_;
};

bool can_create_bf16() {
  Gemm probe{.a = nullptr, .b = nullptr, .c = nullptr, .m = 16, .n = 16, .k = 16};
  probe.lda = probe.ldb = probe.ldc = 16;
  probe.input_type = DType::bf16;
  try {
    create(probe);
    return true;
  } catch (const dnnl::error&) {
    return false;
  }
}

}  // namespace

bool matmul_has(DType dtype) {
  if (dtype != DType::bf16) return dtype == DType::fp32;
  // oneDNN emulates bf16 on AVX-512 without the instructions, slower than fp32: not wanted. The
  // probe is for DNNL_MAX_CPU_ISA and for builds of oneDNN without bf16.
  static const bool result = has_bf16_instructions() && can_create_bf16();
  return result;
}

void matmul(const Gemm& args) {
  static ProductCache cache;
  const Alone alone(args.m * args.n * args.k <= kSmallProduct);
  try {
    execute(*cache.find_or_create(args), args);
  } catch (const dnnl::error& error) {
    fail(error.status == dnnl_out_of_memory ? Code::out_of_memory : Code::internal,
         fmt::format("oneDNN failed on a {} x {} x {} product of {}: {}", args.m, args.n, args.k,
                     to_string(args.input_type), error.what()));
  }
}

}  // namespace tessera::kernels::cpu
