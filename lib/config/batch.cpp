// SPDX-License-Identifier: Apache-2.0
// The batch triangle: train = micro × accumulation × data-parallel size.
#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/config/engine_config.hpp"

namespace tessera::config {
namespace {

constexpr const char* kRule =
    "train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × "
    "data-parallel size";

class Triangle {
 public:
  using Size = std::optional<std::int64_t>;
  Triangle(Size train, Size micro, Size accumulation, std::int64_t data)
      : train_(train), micro_(micro), accumulation_(accumulation), data_(data) {}

  Batch solve() const {
    check_signs();
    if (train_ && micro_) return with_train_and_micro();
    if (train_) return with_train();
    if (micro_) {
      const std::int64_t accumulation = accumulation_.value_or(1);
      return {product(*micro_, accumulation), *micro_, accumulation};
    }
    refuse("give train_batch_size or train_micro_batch_size_per_gpu");
  }

 private:
  Batch with_train_and_micro() const {
    const std::int64_t step = product(*micro_, 1);
    if (accumulation_) {
      const std::int64_t right = product(*micro_, *accumulation_);
      if (right != *train_) refuse(fmt::format("train_batch_size would have to be {}", right));
      return {*train_, *micro_, *accumulation_};
    }
    if (*train_ % step != 0) refuse(multiple_of(step, "train_micro_batch_size_per_gpu"));
    return {*train_, *micro_, *train_ / step};
  }

  Batch with_train() const {
    const std::int64_t accumulation = accumulation_.value_or(1);
    const std::int64_t step = product(1, accumulation);
    if (*train_ % step != 0)
      refuse(multiple_of(step, accumulation_ ? "gradient_accumulation_steps" : ""));
    return {*train_, *train_ / step, accumulation};
  }

  std::int64_t product(std::int64_t micro, std::int64_t accumulation) const {
    return checked_multiply(checked_multiply(micro, accumulation), data_);
  }

  std::string multiple_of(std::int64_t step, std::string_view other) const {
    const std::string factors =
        other.empty() ? "the data-parallel size" : fmt::format("{} × data-parallel size", other);
    const std::int64_t below = *train_ / step * step;
    const std::string choices =
        below == 0 ? fmt::format("{}", step) : fmt::format("{} or {}", below, below + step);
    return fmt::format("train_batch_size has to be a multiple of {} = {}, for example {}", factors,
                       step, choices);
  }

  void check_signs() const {
    for (const Size& size : {train_, micro_, accumulation_, Size(data_)})
      if (size && *size <= 0) refuse("each of them has to be at least 1");
  }

  [[noreturn]] void refuse(const std::string& what) const {
    const auto text = [](const Size& size) {
      return size ? fmt::format("{}", *size) : std::string("not given");
    };
    fail(Code::invalid_config,
         fmt::format("the batch sizes do not fit: train_batch_size {}, "
                     "train_micro_batch_size_per_gpu {}, gradient_accumulation_steps {}, "
                     "data-parallel size {}. The rule is {}; {}",
                     text(train_), text(micro_), text(accumulation_), data_, kRule, what));
  }

  Size train_, micro_, accumulation_;
  std::int64_t data_;
};

}  // namespace

Batch resolve_batch(std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                    std::optional<std::int64_t> accumulation, std::int64_t data_size) {
  return Triangle(train, micro, accumulation, data_size).solve();
}

}  // namespace tessera::config
