"""The style sheet of the HTML report. Text has a contrast of at least 7:1 in both themes."""

from __future__ import annotations

STYLE = """
:root { --paper: #ffffff; --ink: #1b1f24; --soft: #4a5159; --rule: #d0d5db; --panel: #f4f6f8;
  --main: #0b5cad; --other: #8a3ffc; --third: #00695c; --fourth: #9a3b00; --limit: #b3261e;
  --rejected: #8a9099; --forecast: #00695c; --warn: #7a3e00; --warnpaper: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --paper: #111418; --ink: #e8ebef; --soft: #b9c0c8;
  --rule: #3a4149; --panel: #1b2026; --main: #7fb8ff; --other: #c9a6ff; --third: #5fd3c4;
  --fourth: #ffb37a; --limit: #ff9a92; --rejected: #7b838c; --forecast: #5fd3c4;
  --warn: #ffd9a0; --warnpaper: #33260f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--rule);
  padding-bottom: .25rem; }
.answer { font-size: 1.2rem; font-weight: 600; margin: .5rem 0 1rem; }
.cautions { background: var(--warnpaper); color: var(--warn); border-left: 4px solid currentColor;
  padding: .25rem 1rem; margin: 1rem 0; }
.cautions ul { margin: .4rem 0; padding-left: 1.1rem; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: var(--main); }
dl { display: grid; grid-template-columns: minmax(9rem, 15rem) 1fr; gap: .3rem 1rem;
  margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
pre { background: var(--panel); padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; display: block; }
figure svg .axis .guide.line { stroke: var(--rule) !important; stroke-dasharray: 2 4; }
figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; } .n { text-align: right; white-space: nowrap; }
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0 0; }
  dd { margin-bottom: .6rem; }
  body { font-size: 15px; } figure, .scroll { overflow-x: auto; background:
    linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to right, var(--rule), transparent) 0 0 / .8rem 100% no-repeat scroll,
    linear-gradient(to left, var(--rule), transparent) 100% 0 / .8rem 100% no-repeat scroll; }
  figure svg { min-width: 34rem; } figcaption { position: sticky; left: 0; max-width: 100%; } }
@page { size: A4; margin: 14mm; }
@media print { :root { --paper: #fff; --ink: #000; --soft: #333; --panel: #fff; }
  body { font-size: 10pt; } nav { display: none; } section, figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } .scroll { overflow: visible; } }
"""
