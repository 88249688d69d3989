// SPDX-License-Identifier: Apache-2.0
// Table look-up on the tape.
#include "tessera/autograd/embedding.hpp"

#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/embedding.hpp"

#include "autograd/sum_over_group.hpp"
#include "autograd/token_exchange.hpp"
#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

void look_up(const Stream& stream, const Weight& table, const Tensor& ids, const Tensor& y,
             bool accumulate, const kernels::VocabularySlice& slice = {}) {
  kernels::embedding_forward(stream, {.table = attached_value(table),
                                      .ids = ids.as<std::int32_t>(),
                                      .y = y.data(),
                                      .accumulate = accumulate,
                                      .rows = ids.numel(),
                                      .columns = table.value.size(1),
                                      .table_rows = table.value.size(0),
                                      .dtype = y.dtype(),
                                      .slice = slice});
}

void backward(const Stream& stream, const Tensor& dy, Weight& table, const Tensor& ids,
              const kernels::VocabularySlice& slice = {}) {
  const ProfileScope profile("embedding backward");
  const GradientTarget target = gradient_target(table);
  const std::int64_t columns = dy.shape()[-1];
  kernels::embedding_backward(stream, {.dy = dy.data(),
                                       .ids = ids.as<std::int32_t>(),
                                       .dtable = target.data,
                                       .gradient_type = target.dtype,
                                       .accumulate = target.accumulate,
                                       .rows = ids.numel(),
                                       .columns = columns,
                                       .table_rows = table.gradient.numel() / columns,
                                       .dtype = dy.dtype(),
                                       .slice = slice});
}

void check(const Weight& table, const Tensor& ids) {
  attached_value(table);
  TESSERA_CHECK(table.value.shape().rank() == 2 && ids.dtype() == DType::int32,
                Code::invalid_argument,
                fmt::format("look-up in a table of shape {} with {} ids",
                            table.value.shape().to_string(), to_string(ids.dtype())));
}

void check_second(const Weight& table, const Tensor& ids, const Weight& second,
                  const Tensor& second_ids) {
  check(second, second_ids);
  TESSERA_CHECK(second_ids.numel() == ids.numel() && second.value.size(1) == table.value.size(1),
                Code::invalid_argument, "the two tables or their ids do not match");
}

}  // namespace

Value embedding(Tape& tape, Weight& table, const Tensor& ids, Weight* second_table,
                const Tensor& second_ids, const VocabularyPart& part) {
  check(table, ids);
  if (second_table != nullptr) check_second(table, ids, *second_table, second_ids);
  std::vector<std::int64_t> shape = ids.shape().sizes();
  shape.push_back(table.value.size(1));
  const Shape whole(std::move(shape));
  Tensor data(whole, table.value.dtype(), table.value.device());
  {
    const ProfileScope profile("embedding forward");
    look_up(tape.stream(), table, ids, data, false, part.slice);
    if (part.group != nullptr && !part.token_shards)
      sum_over_group(tape.stream(), data, *part.group);
    // What is added up over a group counts once.
    if (second_table != nullptr && (!part.token_shards || part.group->rank() == 0))
      look_up(tape.stream(), *second_table, second_ids, data, true);
    if (part.token_shards) data = sum_to_shards(tape.stream(), data, *part.group);
  }
  const bool second_trains = second_table != nullptr && second_table->trainable;
  Value y = tape.result(std::move(data), table.trainable || second_trains);
  if (!y.requires_gradient()) return y;
  tape.record({.name = "embedding",
               .output = y.slot(),
               .backward_input = {},
               .backward_weight = [&table, ids, second_table, second_ids, second_trains, whole,
                                   part, stream = tape.stream()](const Tensor& gradient) {
                 const Tensor dy = part.token_shards
                                       ? gather_shards(stream, gradient, whole, *part.group)
                                       : gradient;
                 if (table.trainable) backward(stream, dy, table, ids, part.slice);
                 if (second_trains) backward(stream, dy, *second_table, second_ids);
               }});
  return y;
}

}  // namespace tessera::autograd
