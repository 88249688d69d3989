// SPDX-License-Identifier: Apache-2.0
#include "tessera/nn/standardization.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/kernels/standardize.hpp"

namespace tessera::nn {

Standardization::Standardization(std::int64_t features)
    : mean_(static_cast<std::size_t>(features)), squares_(static_cast<std::size_t>(features)) {}

double Standardization::deviation(std::int64_t feature) const {
  const double squares = squares_[static_cast<std::size_t>(feature)];
  return count_ > 0 && squares > 0 ? std::sqrt(squares / count_) : 1;
}

void Standardization::observe(const Tensor& rows) {
  if (rows.device().is_cpu()) return observe_on_host(rows);
  constexpr std::int64_t kNumbers = std::int64_t{1} << 22;
  const std::int64_t width = std::max<std::int64_t>(1, features()), samples = rows.numel() / width;
  const std::int64_t part = std::max<std::int64_t>(1, kNumbers / width);
  const Tensor flat = rows.view({samples, width});
  for (std::int64_t begin = 0; begin < samples; begin += part)
    observe_on_host(
        flat.rows(begin, std::min(samples, begin + part)).on_host(current_stream(rows.device())));
}

void Standardization::observe_on_host(const Tensor& rows) {
  const auto* x = rows.as<float>();
  const std::size_t features = mean_.size();
  const std::int64_t samples = features == 0 ? 0 : rows.numel() / this->features();
  for (std::int64_t row = 0; row < samples; ++row, x += features) {
    count_ += 1;
    for (std::size_t i = 0; i < features; ++i) {
      const double distance = static_cast<double>(x[i]) - mean_[i];
      mean_[i] += distance / count_;
      squares_[i] += distance * (static_cast<double>(x[i]) - mean_[i]);
    }
  }
}

void Standardization::merge(const Standardization& other) {
  if (other.count_ == 0) return;
  const double total = count_ + other.count_;
  for (std::size_t i = 0; i < mean_.size(); ++i) {
    const double distance = other.mean_[i] - mean_[i];
    mean_[i] += distance * (other.count_ / total);
    squares_[i] += other.squares_[i] + distance * distance * (count_ * other.count_ / total);
  }
  count_ = total;
}

void Standardization::scale(const Tensor& x, const Tensor& y, const std::vector<double>& means,
                            bool inverse, const Stream& stream) const {
  std::vector<double> columns = means;
  for (std::int64_t i = 0; i < features(); ++i) columns.push_back(deviation(i));
  const Tensor there = Tensor::borrow(columns.data(), {2, features()}, DType::fp64).on(stream);
  kernels::standardize(stream, {.x = x.as<float>(),
                                .y = y.as<float>(),
                                .mean = there.as<double>(),
                                .deviation = there.as<double>() + features(),
                                .rows = features() == 0 ? 0 : x.numel() / features(),
                                .columns = features(),
                                .inverse = inverse});
}

Tensor Standardization::apply(const Tensor& rows, const Stream& stream) const {
  Tensor result(rows.shape(), DType::fp32, stream.device());
  scale(rows, result, mean_, false, stream);
  return result;
}

Tensor Standardization::invert(const Tensor& rows, const Stream& stream) const {
  Tensor result(rows.shape(), DType::fp32, stream.device());
  scale(rows, result, mean_, true, stream);
  return result;
}

void Standardization::stretch(const Tensor& rows, const Stream& stream) const {
  scale(rows, rows, std::vector<double>(mean_.size()), true, stream);
}

std::string Standardization::to_json() const {
  const nlohmann::ordered_json json = {
      {"count", count_}, {"mean", mean_}, {"sum_of_squares", squares_}};
  return json.dump();
}

Standardization Standardization::parse(const std::string& text, std::int64_t features) {
  Standardization result(features);
  try {
    const auto json = nlohmann::json::parse(text);
    result.count_ = json.at("count").get<double>();
    json.at("mean").get_to(result.mean_);
    json.at("sum_of_squares").get_to(result.squares_);
  } catch (const nlohmann::json::exception& error) {
    fail(Code::io, fmt::format("the statistics of features are damaged: {}", error.what()));
  }
  TESSERA_CHECK(result.features() == features && result.squares_.size() == result.mean_.size(),
                Code::io,
                fmt::format("there are statistics of {} features, the network has {}",
                            result.features(), features));
  return result;
}

}  // namespace tessera::nn
