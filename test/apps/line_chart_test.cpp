// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/line_chart.hpp"

#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "support/markup.hpp"

namespace tessera::app {
namespace {

using test::count;

const double kNaN = std::nan("");

nlohmann::json data_of(const std::string& figure) {
  const std::string begin = "<script type=\"application/json\">";
  const std::size_t from = figure.find(begin) + begin.size();
  return nlohmann::json::parse(figure.substr(from, figure.find("</script>") - from));
}

TEST(LineChart, ThinningKeepsEndsAndSpikes) {
  std::vector<Point> points;
  for (int i = 0; i < 50000; ++i) points.push_back({double(i), std::sin(i * 0.01)});
  points[31234].y = 17;
  points[41234].y = -17;
  points[21234].y = kNaN;
  const std::vector<Point> kept = thin_out(points, 500);
  EXPECT_LE(kept.size(), 1002u);
  EXPECT_GE(kept.size(), 900u);
  EXPECT_EQ(kept.front().x, 0);
  EXPECT_EQ(kept.back().x, 49999);
  const auto has = [&](double x) {
    return std::any_of(kept.begin(), kept.end(), [x](const Point& point) { return point.x == x; });
  };
  EXPECT_TRUE(has(31234));
  EXPECT_TRUE(has(41234));
  EXPECT_FALSE(has(21234));
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end(),
                             [](const Point& a, const Point& b) { return a.x < b.x; }));
  EXPECT_EQ(thin_out({{1, 2}, {2, 3}}, 500).size(), 2u);
  EXPECT_TRUE(thin_out({{1, kNaN}}, 500).empty());
}

TEST(LineChart, SmoothingIsAMeanOfFiniteNeighbours) {
  const std::vector<Point> points = {{1, 2}, {2, 4}, {3, kNaN}, {4, 8}, {5, 10}};
  const std::vector<Point> means = smooth(points, 3);
  ASSERT_EQ(means.size(), 5u);
  const double expected[] = {2, 3, 6, 9, 10};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(means[i].x, points[i].x);
    EXPECT_EQ(means[i].y, expected[i]) << i;
  }
  EXPECT_TRUE(smooth({{1, kNaN}}, 3).empty());
  EXPECT_TRUE(smooth({}, 3).empty());
}

TEST(LineChart, DrawsSeriesLegendMarksAndBrokenValues) {
  Chart chart{.title = "Loss <&> \"norm\""};
  chart.series = {{"train </script>", {{1, 2}, {2, kNaN}, {3, 4}}}, {"valid", {{2, 3}}, true}};
  chart.marks = {{2, "resumed", "on <2> ranks"}};
  const std::string figure = draw(chart);
  EXPECT_EQ(test::markup_problem(figure), "");
  EXPECT_EQ(count(figure, "<path"), 1);  // one point is no line
  EXPECT_EQ(count(figure, "<circle"), 1);
  EXPECT_EQ(count(figure, "class=\"broken\""), 1);
  EXPECT_EQ(count(figure, "class=\"legend\""), 1);
  EXPECT_NE(figure.find("<title>on &lt;2&gt; ranks</title>"), std::string::npos);
  EXPECT_NE(figure.find("<b>Loss &lt;&amp;&gt; &quot;norm&quot;</b>"), std::string::npos);
  EXPECT_EQ(count(figure, "</script>"), 1);
  const auto data = data_of(figure);
  EXPECT_EQ(data["series"][0]["name"], "train </script>");
  EXPECT_EQ(data["series"][0]["points"].dump(), R"([["1","2"],["3","4"]])");
}

TEST(LineChart, PointsLieWhereTheirAxesSay) {
  Chart chart{.title = "t", .from_zero = true};
  chart.series = {{"a", {{0, 0}, {10, 10}}}};
  const std::string figure = draw(chart);
  EXPECT_NE(figure.find("d=\"M58.0 212.0L626.0 16.0\""), std::string::npos) << figure;
}

TEST(LineChart, AWideRangeIsLogarithmicIfAllowed) {
  Chart chart{.title = "t", .may_be_log = true};
  chart.series = {{"a", {{1, 1}, {2, 1000}}}};
  EXPECT_EQ(count(draw(chart), "<i>log</i>"), 1);
  chart.series[0].points.push_back({3, 0});
  EXPECT_EQ(count(draw(chart), "<i>log</i>"), 0);
  chart.series[0].points = {};
  EXPECT_EQ(test::markup_problem(draw(chart)), "");
}

}  // namespace
}  // namespace tessera::app
