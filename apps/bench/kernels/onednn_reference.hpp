// SPDX-License-Identifier: Apache-2.0
// What oneDNN alone reaches on this machine, measured in the same rounds as our kernels: a square
// product with packed rows.
#pragma once

#include <unordered_map>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "tessera/base/dtype.hpp"

#include "support/bench.hpp"

namespace tessera::bench {

class OnednnReference {
 public:
  static constexpr std::int64_t kSize = 1024;

  explicit OnednnReference(DType dtype)
      : type_(dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32),
        description_({kSize, kSize}, type_, dnnl::memory::format_tag::ab),
        storage_(3 * static_cast<std::size_t>(kSize * kSize) * size_of(dtype), 0x3f),
        product_(create()) {
    unsigned char* data = storage_.data();
    for (const int name : {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST}) {
      arguments_.emplace(name, dnnl::memory(description_, engine_, data));
      data += static_cast<std::size_t>(kSize * kSize) * size_of(dtype);
    }
  }

  Variant variant() {
    return {.name = "oneDNN 1024 x 1024 x 1024",
            .run = [this] { product_.execute(stream_, arguments_); },
            .work = 2.0 * kSize * kSize * kSize};
  }

 private:
  dnnl::matmul create() {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl::matmul(
        dnnl::matmul::primitive_desc(engine_, description_, description_, description_));
#else
    return dnnl::matmul(
        dnnl::matmul::primitive_desc({description_, description_, description_}, engine_));
#endif
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  dnnl::memory::data_type type_;
  dnnl::memory::desc description_;
  std::vector<unsigned char> storage_;
  dnnl::matmul product_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

}  // namespace tessera::bench
