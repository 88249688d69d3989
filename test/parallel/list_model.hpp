// SPDX-License-Identifier: Apache-2.0
// A model that is only a list of parameters, and random ones of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::parallel {

/// Random decisions that are the same on every rank.
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t stream) : random_(seed, stream) {}
  /// 0 … bound - 1
  int pick(int bound) {
    return static_cast<int>(random_.bits(next_++) % static_cast<std::uint32_t>(bound));
  }
  int between(int low, int high) { return low + pick(high - low + 1); }

 private:
  RandomStream random_;
  std::uint64_t next_ = 0;
};

class ListModel : public nn::Model {
 public:
  struct Item {
    std::string unit;
    std::string name;
    Shape shape;
    /// What a tensor axis divides: a dimension (-1: nothing) of so many parts, each by itself.
    int dimension = -1;
    int parts = 1;
  };

  explicit ListModel(const std::vector<Item>& items, const nn::TensorAxis& tensor = {})
      : nn::Model({.tensor = tensor}) {
    for (const Item& item : items) {
      if (units_.empty() || units_.back().name != item.unit) {
        const int use = static_cast<int>(units_.size());
        units_.push_back({item.unit, {}, use, use});
      }
      storage_.push_back(
          std::make_unique<nn::Parameter>(partition(item, tensor), nn::Initialization{}));
      units_.back().parameters.push_back({item.name, storage_.back().get()});
    }
    arrange_for_tensor_axis();
  }

  std::vector<std::string> names_in_files(const std::string& name) const override { return {name}; }
  bool ignores(const std::string&) const override { return false; }

  // It only has parameters.
  std::int64_t vocabulary() const override { return 0; }
  std::int64_t positions() const override { return 0; }
  std::string config_json() const override { return "{}"; }
  void check(const Tensor&, const Tensor*) const override { no_mathematics(); }
  std::int64_t training_flops(std::int64_t, std::int64_t) const override { return 0; }
  std::int64_t activation_bytes(std::int64_t, std::int64_t) const override { return 0; }
  std::int64_t kept_bytes(std::int64_t, std::int64_t) const override { return 0; }
  std::int64_t recorded_bytes(std::int64_t, std::int64_t) const override { return 0; }
  autograd::Loss forward_loss(autograd::Tape&, const nn::Batch&) override { no_mathematics(); }
  Tensor logits(autograd::Tape&, const Tensor&) override { no_mathematics(); }
  nn::KvCache make_cache(std::int64_t, std::int64_t, Device) const override { no_mathematics(); }
  Tensor forward_cached(autograd::Tape&, const Tensor&, nn::KvCache&) override { no_mathematics(); }

 private:
  static nn::Partition partition(const Item& item, const nn::TensorAxis& tensor) {
    if (item.dimension < 0 || tensor.size == 1) return nn::Partition(item.shape);
    std::vector<nn::Interval> kept;
    const std::int64_t part = item.shape[item.dimension] / item.parts;
    const nn::Interval share = nn::balanced_share(part, tensor.size, tensor.rank);
    for (int p = 0; p < item.parts; ++p)
      kept.push_back({p * part + share.begin, p * part + share.end});
    return nn::Partition(item.shape, item.dimension, std::move(kept));
  }

  [[noreturn]] static void no_mathematics() { fail(Code::internal, "a list of parameters"); }

  std::vector<std::unique_ptr<nn::Parameter>> storage_;
};

/// Single elements, tensors smaller than the rank count, sizes that divide by nothing, an empty one
/// now and then, up to a few thousand elements.
inline Shape random_shape(Dice& dice) {
  switch (dice.pick(6)) {
    case 0:
      return Shape{};
    case 1:
      return Shape{dice.between(1, 7)};
    case 2:
      return Shape{dice.between(1, 400)};
    case 3:
      return Shape{dice.between(1, 60), dice.between(1, 60)};
    case 4:
      return Shape{dice.between(1, 9), dice.between(1, 9), dice.between(1, 9)};
    default:
      return dice.pick(4) == 0 ? Shape{0, dice.between(1, 5)} : Shape{16 * dice.between(1, 64)};
  }
}

inline std::vector<ListModel::Item> random_items(Dice& dice) {
  std::vector<ListModel::Item> items;
  const int units = dice.between(1, 5);
  for (int unit = 0; unit < units; ++unit) {
    const int parameters = dice.between(1, 7);
    for (int j = 0; j < parameters; ++j) {
      items.push_back({fmt::format("h.{}", unit), fmt::format("model.h.{}.part_{}.weight", unit, j),
                       random_shape(dice)});
      ListModel::Item& item = items.back();
      if (item.shape.rank() == 0 || dice.pick(3) == 0) continue;
      item.dimension = dice.pick(item.shape.rank());
      item.parts = item.shape[item.dimension] % 3 == 0 ? 3 : 1;
    }
  }
  return items;
}

}  // namespace tessera::parallel
