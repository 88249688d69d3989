// SPDX-License-Identifier: Apache-2.0
// Small collectives of the shm transport: the data travels in the announcement, and nobody touches
// anybody's memory.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/shm/shared_node.hpp"

namespace tessera::comm {

/// The most that one rank contributes this way.
std::int64_t inline_bytes();

/// Announce with the data, wait for all, read what the others announced.
class InlineOperation : public Operation {
 public:
  explicit InlineOperation(SharedNode& node) : node_(&node), number_(node.new_operation()) {}
  bool execute() final;
  std::vector<int> missing() const override { return node_->not_announced(number_); }

 protected:
  virtual void fill(std::byte* payload) = 0;
  virtual void use() = 0;

  const std::byte* payload_of(int rank) const { return node_->slot(rank, number_).payload; }
  /// Folds what each rank has at `offset` of its payload.
  void fold_payloads(const FoldOrder& order, std::int64_t offset, void* target, std::int64_t count,
                     DType dtype, Reduction reduction) const;

  SharedNode* node_;

 private:
  std::int64_t number_;
  bool announced_ = false;
};

class InlineBarrier : public InlineOperation {
 public:
  using InlineOperation::InlineOperation;

 protected:
  void fill(std::byte*) override {}
  void use() override {}
};

class InlineAllReduce : public InlineOperation {
 public:
  InlineAllReduce(SharedNode& node, const FoldOrder& order, std::byte* data, std::int64_t count,
                  DType dtype, Reduction reduction)
      : InlineOperation(node),
        order_(&order),
        data_(data),
        count_(count),
        dtype_(dtype),
        reduction_(reduction) {}

 protected:
  void fill(std::byte* payload) override;
  void use() override { fold_payloads(*order_, 0, data_, count_, dtype_, reduction_); }

 private:
  const FoldOrder* order_;
  std::byte* data_;
  std::int64_t count_;
  DType dtype_;
  Reduction reduction_;
};

/// A payload holds the pieces of all ranks, part after part.
class InlineReduceScatter : public InlineOperation {
 public:
  InlineReduceScatter(SharedNode& node, const FoldOrder& order, std::vector<Part> parts,
                      DType dtype, Reduction reduction)
      : InlineOperation(node),
        order_(&order),
        parts_(std::move(parts)),
        dtype_(dtype),
        reduction_(reduction) {}
  static bool fits(const std::vector<Part>& parts, int ranks, DType dtype);

 protected:
  void fill(std::byte* payload) override;
  void use() override;

 private:
  const FoldOrder* order_;
  std::vector<Part> parts_;
  DType dtype_;
  Reduction reduction_;
};

/// A payload holds this rank's piece of each part.
class InlineAllGather : public InlineOperation {
 public:
  InlineAllGather(SharedNode& node, std::vector<Part> parts, DType dtype)
      : InlineOperation(node),
        parts_(std::move(parts)),
        width_(static_cast<std::int64_t>(size_of(dtype))) {}
  static bool fits(const std::vector<Part>& parts, DType dtype);

 protected:
  void fill(std::byte* payload) override;
  void use() override;

 private:
  std::vector<Part> parts_;
  std::int64_t width_;
};

}  // namespace tessera::comm
