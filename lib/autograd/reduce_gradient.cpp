// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/reduce_gradient.hpp"

#include <utility>

#include "tessera/autograd/profiler.hpp"

#include "autograd/sum_over_group.hpp"

namespace tessera::autograd {

void sum_over_group(const Stream& stream, const Tensor& tensor, Communicator& group) {
  const ProfileScope profile("tensor all-reduce");
  group.all_reduce(tensor.data(), tensor.numel(), tensor.dtype(), Reduction::sum, stream).wait();
}

void reduce_gradient(Tape& tape, const Value& x, Communicator& group) {
  if (!tape.recording() || !x.requires_gradient()) return;
  tape.record({.name = "reduce_gradient",
               .output = x.slot(),
               .backward_input =
                   [&group, slot = x.slot(), stream = tape.stream()](Tensor& dx) {
                     Tensor sum = dx.unique() ? std::move(dx) : dx.clone(stream);
                     sum_over_group(stream, sum, group);
                     slot->add(stream, std::move(sum));
                   },
               .backward_weight = {}});
}

}  // namespace tessera::autograd
