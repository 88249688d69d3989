// SPDX-License-Identifier: Apache-2.0
#include "tessera/inference/generator.hpp"

#include <algorithm>

#include "tessera/base/error.hpp"

namespace tessera::inference {
namespace {

// The text so far with the keys and values of its tail.
class Context {
 public:
  Context(ServedModel& served, std::span<const std::int32_t> prompt)
      : served_(served),
        tokens_(prompt.begin(), prompt.end()),
        cache_(served.model().make_cache(1, served.model().positions(), served.stream().device())) {
  }

  void append(std::int32_t token) { tokens_.push_back(token); }

  // Logits of the token after the last, fp32 [1, vocabulary], on the host.
  Tensor next_logits() {
    if (fed_ == 0 || cache_.length == cache_.capacity) start_again();
    const auto count = static_cast<std::int64_t>(tokens_.size() - fed_);
    Tensor ids({1, count}, DType::int32, {}, Purpose::workspace);
    std::copy(tokens_.begin() + static_cast<std::ptrdiff_t>(fed_), tokens_.end(),
              ids.as<std::int32_t>());
    const Stream& stream = served_.stream();
    autograd::Tape tape(autograd::Recording::off, &served_.hooks(), stream);
    fed_ = tokens_.size();
    return served_.model().forward_cached(tape, ids.on(stream), cache_).on_host(stream);
  }

 private:
  // Positions are learned from 0, so a full cache cannot be shifted: its later half is computed
  // again.
  void start_again() {
    const auto room = static_cast<std::size_t>(cache_.capacity);
    const std::size_t keep = fed_ == 0 ? room - 1 : room / 2;
    cache_.length = 0;
    fed_ = tokens_.size() - std::min(tokens_.size(), std::max<std::size_t>(1, keep));
  }

  ServedModel& served_;
  std::vector<std::int32_t> tokens_;
  nn::KvCache cache_;
  std::size_t fed_ = 0;  // tokens before this one are in the cache or forgotten
};

}  // namespace

std::vector<std::int32_t> generate(ServedModel& served, std::span<const std::int32_t> prompt,
                                   const GenerationOptions& options,
                                   const std::function<void(std::int32_t)>& on_token) {
  validate(options.sampling);
  TESSERA_CHECK(!prompt.empty(), Code::invalid_argument,
                "the prompt has no tokens: give some text");
  Context context(served, prompt);
  std::vector<std::int32_t> generated;
  while (static_cast<std::int64_t>(generated.size()) < options.max_tokens) {
    const Tensor logits = context.next_logits();
    const std::int32_t token =
        sample({logits.as<float>(), static_cast<std::size_t>(logits.numel())}, options.sampling,
               generated.size());
    if (token == options.end_of_text) break;
    generated.push_back(token);
    context.append(token);
    if (on_token) on_token(token);
  }
  return generated;
}

}  // namespace tessera::inference
