// SPDX-License-Identifier: Apache-2.0
// A line chart as an SVG inside an HTML figure, with a legend.
#pragma once

#include <string>
#include <vector>

namespace tessera::app {

/// "a < b" -> "a &lt; b"; quotes too.
std::string escape_html(const std::string& text);

struct Point {
  double x, y;
};

struct Series {
  std::string name;
  std::vector<Point> points;  // x ascending; y may be NaN or infinite
  bool dots = false;          // a dot at every point
  bool faint = false;         // behind a smoothed line
};

/// A vertical line at `x`.
struct Mark {
  double x;
  std::string label;
  std::string details;  // shown when the mouse rests on it
};

struct Chart {
  std::string title;
  std::string x_label = "step";
  bool whole_x = true;      // x counts something
  bool from_zero = false;   // the y axis begins at zero
  bool may_be_log = false;  // a logarithmic y axis where values span more than a decade
  std::vector<Series> series = {};
  std::vector<Mark> marks = {};
};

/// At most about 2 * `buckets` of the points: the lowest and the highest of every bucket, so that
/// spikes stay. Points that are not finite are left out.
std::vector<Point> thin_out(const std::vector<Point>& points, std::size_t buckets);

/// Means over a window of `width` neighbours around every point, of those that are finite.
std::vector<Point> smooth(const std::vector<Point>& points, std::size_t width);

/// A self-contained <figure>. Its values lie beside it as JSON, for a script that reads them out.
std::string draw(const Chart& chart);

}  // namespace tessera::app
