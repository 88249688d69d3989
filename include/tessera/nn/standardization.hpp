// SPDX-License-Identifier: Apache-2.0
// Mean and standard deviation of features, and scaling by them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/tensor/tensor.hpp"

namespace tessera::nn {

/// Statistics of `features` columns that grow with every batch and may be joined across ranks, in
/// fp64 (Chan, Golub, LeVeque 1983). Before any sample, and for a feature that never changes, the
/// mean is subtracted and the deviation counts as 1.
class Standardization {
 public:
  explicit Standardization(std::int64_t features);

  std::int64_t features() const { return static_cast<std::int64_t>(mean_.size()); }
  /// Samples seen.
  double count() const { return count_; }
  double mean(std::int64_t feature) const { return mean_[static_cast<std::size_t>(feature)]; }
  double deviation(std::int64_t feature) const;

  /// rows: [..., features] fp32, on any device; those of a GPU are brought to the host by parts.
  void observe(const Tensor& rows);
  void merge(const Standardization& other);

  /// (x - mean) / deviation, a new fp32 tensor, of rows on the stream's device.
  Tensor apply(const Tensor& rows, const Stream& stream = {}) const;
  /// x * deviation + mean
  Tensor invert(const Tensor& rows, const Stream& stream = {}) const;
  /// x * deviation, in place: of gradients, from normalised numbers' to those of what invert()
  /// gave.
  void stretch(const Tensor& rows, const Stream& stream = {}) const;

  /// JSON with every bit. Errors of parse: io.
  std::string to_json() const;
  static Standardization parse(const std::string& json, std::int64_t features);

 private:
  void observe_on_host(const Tensor& rows);
  /// The kernel's call, with these means and the deviations.
  void scale(const Tensor& x, const Tensor& y, const std::vector<double>& means, bool inverse,
             const Stream& stream) const;

  double count_ = 0;
  std::vector<double> mean_;
  std::vector<double> squares_;  // Σ (x - mean)^2
};

}  // namespace tessera::nn
