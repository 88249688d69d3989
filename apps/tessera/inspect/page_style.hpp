// SPDX-License-Identifier: Apache-2.0
// Style sheet and script of the run's page.
#pragma once

namespace tessera::app {

inline constexpr const char* kPageStyle = R"(
:root { color-scheme: light dark; --ink: #1c2128; --soft: #636c76; --paper: #f6f7f9; --card: #fff;
  --line: #e3e6ea; --c0: #2563c9; --c1: #d9580d; --c2: #16877a; --c3: #a8329e; --c4: #b08900; --c5: #5b4bc4;
  --c6: #c22f4d; --c7: #4d7c0f; --alert: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a2b0; --paper: #0f1318; --card: #181d24;
  --line: #2b323c; --c0: #6ea8ff; --c1: #ff9a57; --c2: #4fd0bf; --c3: #e58adf; --c4: #e6c14d; --c5: #a99bff;
  --c6: #ff8197; --c7: #a3d65c; --alert: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 34px 0 12px; }
p { margin: 4px 0; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px; margin: 20px 0; }
.tile, .chart, .box { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tile { padding: 10px 14px; } .tile span { color: var(--soft); font-size: 12px; display: block; }
.tile b { font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 14px; }
.chart { margin: 0; padding: 12px 12px 6px; position: relative; min-width: 0; }
.chart svg { width: 100%; height: auto; display: block; font-size: 11px; }
figcaption { padding: 0 4px 6px; } figcaption i { color: var(--soft); font-size: 12px; }
.legend { font-size: 12px; color: var(--soft); } .legend span { margin-left: 14px; white-space: nowrap; }
.legend span::before { content: ""; display: inline-block; width: 14px; margin-right: 5px; vertical-align: middle;
  border-top: 3px solid var(--c); } .legend .dashed::before { border-top-style: dotted; }
svg text { fill: var(--soft); } svg .end { text-anchor: end; } svg .mid { text-anchor: middle; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); } svg .broken { fill: var(--alert); text-anchor: middle; }
svg path { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-linejoin: round; } svg .faint { opacity: 0.4; } svg .thin { stroke-width: 1.1; } svg .dashed path { stroke-dasharray: 5 3; }
svg circle { fill: var(--c); } .mark line { stroke: var(--soft); stroke-dasharray: 2 3; } .mark text { font-size: 10px; }
.mark:hover line { stroke: var(--ink); stroke-dasharray: none; }
.cursor { stroke: var(--soft); visibility: hidden; } .cursor.on { visibility: visible; }
.tip { position: absolute; pointer-events: none; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: 4px 9px; font-size: 12px; box-shadow: 0 2px 8px #0003; white-space: nowrap; font-variant-numeric: tabular-nums; z-index: 1; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); }
.box { padding: 12px 16px; overflow-x: auto; } .box h3 { margin: 0 0 6px; font-size: 15px; } .box + .box { margin-top: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-top: 1px solid var(--line); white-space: nowrap; }
tr:first-child th { border-top: 0; color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
td.bar { width: 40%; min-width: 90px; } td.bar div { height: 9px; border-radius: 3px; background: var(--c0); min-width: 1px; }
.charts .box + .box { margin-top: 0; }
.lanes { width: 100%; height: auto; display: block; font-size: 11px; margin: 8px 0; }
.lanes rect { fill: var(--k); } .lanes rect:hover { opacity: 0.75; } .lanes .number { fill: var(--card); text-anchor: middle; pointer-events: none; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; background: var(--k); }
.k-forward { --k: var(--c0); } .k-backward { --k: var(--c2); } .k-backward_weight { --k: var(--c7); } .k-optimizer { --k: var(--c5); }
.k-communication { --k: var(--c1); } .k-idle { --k: var(--line); } .k-input { --k: var(--c6); } .k-validation { --k: var(--c3); }
.k-checkpoint { --k: var(--c4); } .k-step { --k: var(--soft); }
.alert { color: var(--alert); } td.text { white-space: normal; text-align: left; }
details { margin-top: 14px; } summary { cursor: pointer; } pre { overflow-x: auto; font-size: 12px; line-height: 1.45; }
)";

// Reads out the values under the mouse. The page is whole without it.
inline constexpr const char* kPageScript = R"(
for (const chart of document.querySelectorAll('.chart')) {
  const data = JSON.parse(chart.querySelector('script').textContent);
  const svg = chart.querySelector('svg'), cursor = chart.querySelector('.cursor');
  const tip = chart.appendChild(document.createElement('div'));
  tip.className = 'tip'; tip.hidden = true;
  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (+points[middle][0] < x) low = middle; else high = middle; }
    return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
  };
  const hide = () => { tip.hidden = true; cursor.classList.remove('on'); };
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    const lines = data.series.filter(series => series.points.length);
    if (part < data.left || part > data.right || !lines.length) return hide();
    const place = (part - data.left) / (data.right - data.left);
    const wanted = data.x.low + place * (data.x.high - data.x.low);
    const x = +lines.map(series => nearest(series.points, wanted))
      .reduce((a, b) => Math.abs(a[0] - wanted) <= Math.abs(b[0] - wanted) ? a : b)[0];
    tip.replaceChildren(document.createTextNode(data.x.name + ' ' + x));
    for (const series of lines) {
      const point = nearest(series.points, x);
      const line = tip.appendChild(document.createElement('div'));
      line.textContent = series.name + ': ' + point[1] + (+point[0] === x ? '' : ' (at ' + point[0] + ')');
    }
    const at = (data.left + (x - data.x.low) / (data.x.high - data.x.low) * (data.right - data.left)) * data.width;
    cursor.setAttribute('x1', at); cursor.setAttribute('x2', at); cursor.classList.add('on');
    tip.hidden = false;
    const left = event.clientX - chart.getBoundingClientRect().left;
    tip.style.left = (left + tip.offsetWidth + 20 > chart.clientWidth ? left - tip.offsetWidth - 12 : left + 14) + 'px';
    tip.style.top = (event.clientY - chart.getBoundingClientRect().top + 12) + 'px';
  });
}
)";

}  // namespace tessera::app
