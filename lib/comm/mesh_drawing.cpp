// SPDX-License-Identifier: Apache-2.0
#include "tessera/comm/mesh_drawing.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/format.h>

namespace tessera {
namespace {

constexpr int kMostNodes = 8;
constexpr int kGap = -1;
constexpr int kGapWidth = 3;

/// 0 … count-1; when there are more than `most`, kGap in place of the middle.
std::vector<int> shown(int count, int most) {
  std::vector<int> numbers(static_cast<std::size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  if (count <= most) return numbers;
  const int head = (most + 1) / 2, tail = most / 2;
  numbers.erase(numbers.begin() + head, numbers.end() - tail);
  numbers.insert(numbers.begin() + head, kGap);
  return numbers;
}

class Drawing {
 public:
  explicit Drawing(const MeshPlan& plan)
      : plan_(plan), cells_(static_cast<std::size_t>(plan.nodes().nodes())) {
    for (std::size_t rank = 0; rank < plan.nodes().node_of.size(); ++rank) {
      const auto node = static_cast<std::size_t>(plan.nodes().node_of[rank]);
      cells_[node].push_back(describe(static_cast<int>(rank)));
    }
  }

  std::string text(int columns) const {
    std::size_t most = 0, cell = 0;
    for (const auto& node : cells_) {
      most = std::max(most, node.size());
      for (const std::string& one : node) cell = std::max(cell, one.size());
    }
    std::vector<std::string> heads;
    for (std::size_t local = 0; local < most; ++local)
      heads.push_back(fmt::format("local {}", local));
    cell = std::max(cell, heads.back().size());
    const std::size_t label = fmt::formatted_size("node {}", cells_.size() - 1);
    const auto fitting = [&](int room) {
      return std::max(2, (columns - static_cast<int>(label) - room) / static_cast<int>(cell + 2));
    };
    const int ranks = static_cast<int>(most);
    const std::vector<int> across = shown(ranks, ranks <= fitting(0) ? ranks : fitting(kGapWidth));
    std::string text = line("", label, heads, across, cell);
    for (const int node : shown(static_cast<int>(cells_.size()), kMostNodes))
      text += node == kGap ? "…\n"
                           : line(fmt::format("node {}", node), label,
                                  cells_[static_cast<std::size_t>(node)], across, cell);
    return text;
  }

 private:
  /// Of the axes in use.
  std::string describe(int rank) const {
    std::string text = fmt::format("{}:", rank);
    const char* separator = "";
    for (const Axis axis : kAxes) {
      const bool alone = axis == Axis::data && plan_.shape().ranks() == 1;
      if (plan_.shape().size(axis) == 1 && !alone) continue;
      text += fmt::format("{}{}{}", separator, to_string(axis)[0], plan_.position(axis, rank));
      separator = " ";
    }
    return text;
  }

  static std::string line(const std::string& head, std::size_t label,
                          const std::vector<std::string>& cells, const std::vector<int>& across,
                          std::size_t width) {
    std::string text = fmt::format("{:{}}", head, label);
    for (const int local : across) {
      const bool there = local < std::ssize(cells);
      if (local == kGap)
        text += "  …";
      else
        text += fmt::format("  {:{}}", there ? cells[static_cast<std::size_t>(local)] : "", width);
    }
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  }

  const MeshPlan& plan_;
  std::vector<std::vector<std::string>> cells_;  // of each node
};

}  // namespace

std::string draw_mesh(const MeshPlan& plan, int columns) {
  return Drawing(plan).text(columns);
}

}  // namespace tessera
