// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/line_chart.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "apps/tessera/inspect/axis.hpp"

namespace tessera::app {
namespace {

constexpr double kWidth = 640, kHeight = 250;
constexpr double kLeft = 58, kRight = 14, kTop = 16, kBottom = 38;
constexpr std::size_t kBuckets = 500, kMostCrosses = 200, kColours = 8;

bool finite(const Point& point) {
  return std::isfinite(point.x) && std::isfinite(point.y);
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

Axis x_axis(const Chart& chart) {
  Range range;
  for (const Series& series : chart.series)
    for (const Point& point : series.points) range.include(point.x);
  for (const Mark& mark : chart.marks) range.include(mark.x);
  return {range.low, range.high};
}

Axis y_axis(const Chart& chart) {
  Range range;
  for (const Series& series : chart.series)
    for (const Point& point : series.points) range.include(point.y);
  if (chart.may_be_log && range.low > 0 && range.high > 10 * range.low)
    return Axis(range.low, range.high, Axis::Scale::logarithmic).rounded();
  if (chart.from_zero) range.include(0);
  return Axis(range.low, range.high).rounded();
}

// Draws one chart into `svg_`.
class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart), x_(x_axis(chart)), y_(y_axis(chart)) {}

  std::string figure() {
    draw_grid();
    draw_marks();
    for (std::size_t i = 0; i < chart_.series.size(); ++i) draw_series(i);
    return fmt::format(
        "<figure class=\"chart\">\n<figcaption><b>{}</b>{}{}</figcaption>\n"
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}"
        "<line class=\"cursor\" y1=\"{}\" y2=\"{}\"/>\n</svg>\n"
        "<script type=\"application/json\">{}</script>\n</figure>\n",
        escape_html(chart_.title), y_.scale() == Axis::Scale::logarithmic ? " <i>log</i>" : "",
        legend(), kWidth, kHeight, escape_html(chart_.title), svg_, kTop, kHeight - kBottom,
        data());
  }

 private:
  double px(double x) const { return kLeft + x_.position(x) * (kWidth - kLeft - kRight); }
  double py(double y) const {
    return kHeight - kBottom - y_.position(y) * (kHeight - kTop - kBottom);
  }

  void draw_grid() {
    for (const Tick& tick : y_.ticks(5)) {
      const double y = py(tick.value);
      svg_ += fmt::format(
          "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
          "<text x=\"{}\" y=\"{:.1f}\" class=\"end\">{}</text>\n",
          kLeft, kWidth - kRight, y, y, kLeft - 7, y + 4, tick.label);
    }
    for (const Tick& tick : x_.ticks(7, chart_.whole_x)) {
      const double x = px(tick.value);
      svg_ += fmt::format(
          "<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>"
          "<text x=\"{:.1f}\" y=\"{}\" class=\"mid\">{}</text>\n",
          x, x, kHeight - kBottom, kHeight - kBottom + 4, x, kHeight - kBottom + 17, tick.label);
    }
    svg_ += fmt::format(
        "<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>"
        "<text x=\"{}\" y=\"{}\" class=\"mid name\">{}</text>\n",
        kLeft, kWidth - kRight, kHeight - kBottom, kHeight - kBottom, (kLeft + kWidth - kRight) / 2,
        kHeight - 4, escape_html(chart_.x_label));
  }

  void draw_marks() {
    double free_from = kLeft;  // labels do not lie on each other
    for (const Mark& mark : chart_.marks) {
      const double x = px(mark.x);
      svg_ += fmt::format(
          "<g class=\"mark\"><title>{}</title><line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" "
          "y2=\"{}\"/>",
          escape_html(mark.details), x, x, kTop, kHeight - kBottom);
      const double length = 6.0 * static_cast<double>(mark.label.size());
      if (x >= free_from && x + length < kWidth) {
        svg_ += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>", x + 3, kTop - 4,
                            escape_html(mark.label));
        free_from = x + length + 12;
      }
      svg_ += "</g>\n";
    }
  }

  void draw_series(std::size_t index) {
    const Series& series = chart_.series[index];
    const std::vector<Point> points = thin_out(series.points, kBuckets);
    svg_ += fmt::format("<g class=\"{}{}\">", style(index), series.faint ? " faint" : "");
    std::string path;
    for (const Point& point : points)
      path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? 'M' : 'L', px(point.x), py(point.y));
    const char* width = points.size() > kBuckets ? " class=\"thin\"" : "";
    if (points.size() > 1) svg_ += fmt::format("<path{} d=\"{}\"/>", width, path);
    if (series.dots || points.size() == 1)
      for (const Point& point : points)
        svg_ +=
            fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>", px(point.x), py(point.y));
    svg_ += "</g>\n";
    draw_crosses(series);
  }

  // Where a value is not a number.
  void draw_crosses(const Series& series) {
    std::vector<Point> broken;
    for (const Point& point : series.points)
      if (!finite(point)) broken.push_back(point);
    const std::size_t stride = broken.size() / kMostCrosses + 1;
    for (std::size_t i = 0; i < broken.size(); i += stride)
      svg_ += fmt::format(
          "<text class=\"broken\" x=\"{:.1f}\" y=\"{}\"><title>{}: not a finite number at "
          "{}</title>×</text>\n",
          px(broken[i].x), kTop + 8, escape_html(series.name), broken[i].x);
  }

  std::string legend() const {
    if (chart_.series.size() < 2) return "";
    std::string text = "<span class=\"legend\">";
    for (std::size_t i = 0; i < chart_.series.size(); ++i)
      text +=
          fmt::format("<span class=\"{}\">{}</span>", style(i), escape_html(chart_.series[i].name));
    return text + "</span>";
  }

  // What a script needs to find the values under the mouse.
  std::string data() const {
    nlohmann::json json;
    json["x"] = {{"low", x_.low()}, {"high", x_.high()}, {"name", chart_.x_label}};
    json["left"] = kLeft / kWidth;
    json["right"] = 1 - kRight / kWidth;
    json["width"] = kWidth;
    json["series"] = nlohmann::json::array();
    for (const Series& series : chart_.series) {
      nlohmann::json points = nlohmann::json::array();
      for (const Point& point : thin_out(series.points, kBuckets))
        points.push_back({fmt::format("{:.10g}", point.x), fmt::format("{:.5g}", point.y)});
      json["series"].push_back({{"name", series.name}, {"points", points}});
    }
    std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;)
      text.replace(at, 1, "\\u003c");  // no end of the script inside a name
    return text;
  }

  // Classes of the style sheet: a colour, and dashes once all colours are used.
  static std::string style(std::size_t index) {
    return fmt::format("c{}{}", index % kColours, index < kColours ? "" : " dashed");
  }

  const Chart& chart_;
  Axis x_, y_;
  std::string svg_;
};

}  // namespace

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  return escaped;
}

std::vector<Point> thin_out(const std::vector<Point>& points, std::size_t buckets) {
  std::vector<Point> whole;
  std::copy_if(points.begin(), points.end(), std::back_inserter(whole), finite);
  if (whole.size() <= 2 * buckets) return whole;
  std::vector<Point> kept = {whole.front()};
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(bucket * whole.size() / buckets);
    const auto end =
        whole.begin() + static_cast<std::ptrdiff_t>((bucket + 1) * whole.size() / buckets);
    auto [low, high] =
        std::minmax_element(begin, end, [](const Point& a, const Point& b) { return a.y < b.y; });
    if (high < low) std::swap(low, high);
    for (const auto& point : {low, high})
      if (point->x > kept.back().x) kept.push_back(*point);
  }
  if (whole.back().x > kept.back().x) kept.push_back(whole.back());
  return kept;
}

std::vector<Point> smooth(const std::vector<Point>& points, std::size_t width) {
  // Sums from the start, so that a window costs two subtractions.
  std::vector<double> sums = {0}, counts = {0};
  for (const Point& point : points) {
    sums.push_back(sums.back() + (finite(point) ? point.y : 0));
    counts.push_back(counts.back() + (finite(point) ? 1 : 0));
  }
  std::vector<Point> means;
  for (std::size_t i = 0; i < points.size(); ++i) {
    // The window narrows towards the ends, so that it stays around its point.
    const std::size_t reach = std::min({width / 2, i, points.size() - 1 - i});
    const std::size_t begin = i - reach, end = i + reach + 1;
    const double count = counts[end] - counts[begin];
    if (count > 0) means.push_back({points[i].x, (sums[end] - sums[begin]) / count});
  }
  return means;
}

std::string draw(const Chart& chart) {
  return Drawing(chart).figure();
}

}  // namespace tessera::app
