"""The review page's one style and its one script, as they stand in it: the page's policy knows both by their hash.

Rules: neither names an address; the script hides rows and counts what is left, reads texts as text, and puts none into
the page but a number. On paper there are no filters, and colours are borders and words.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6470; --line: #d5dae1; --paper: #ffffff; --soft: #f5f7f9;
  --green: #1a7f37; --amber: #9a6700; --red: #b42318; --blue: #1f5fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #9aa4b2; --line: #363d47; --paper: #14181d;
  --soft: #1c2127; --green: #56d364; --amber: #e3b341; --red: #ff7b72; --blue: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 84rem; font: 14px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
section.bad h2 { color: var(--red); } section.weak h2 { color: var(--amber); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: 12px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; } code.id { white-space: nowrap; }
.badge { display: inline-block; padding: .15rem .6rem; border-radius: 1rem; font-weight: 700; border: 2px solid; }
.good { color: var(--green); } .weak { color: var(--amber); } .bad { color: var(--red); }
section.weak, section.bad { color: inherit; }
.dim { color: var(--dim); font-size: 12px; }
table { border-collapse: collapse; width: 100%; table-layout: auto; }
th { text-align: left; color: var(--dim); font-weight: 600; border-bottom: 2px solid var(--line);
  padding: .3rem .5rem; }
td { vertical-align: top; border-bottom: 1px solid var(--line); padding: .4rem .5rem; overflow-wrap: anywhere;
  white-space: pre-line; }
@media (min-width: 60rem) { td { min-width: 6.5rem; } }  /* long facts leave room for names */
#steps thead th { position: sticky; top: 0; background: var(--paper); }
td.when { white-space: nowrap; font-variant-numeric: tabular-nums; color: var(--dim); }
#steps, #sessions { table-layout: fixed; }  /* thousands of rows: no column waits for the last of them */
#steps th:nth-child(1) { width: 11rem; } #steps th:nth-child(2) { width: 16%; } #steps th:nth-child(3) { width: 34%; }
#steps th:nth-child(4) { width: 10%; }
#sessions th:nth-child(1) { width: 17rem; } #sessions th:nth-child(2), #sessions th:nth-child(3) { width: 15%; }
#sessions th:nth-child(4) { width: 22%; }
details { display: inline-block; vertical-align: top; margin-left: .4rem; } td details { margin-left: 0; }
details[open] { display: block; } summary { cursor: pointer; color: var(--blue); }
details p { margin: .3rem 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; white-space: normal; }
.kind { font-weight: 600; color: var(--red); white-space: nowrap; }
.word { font-weight: 600; } .word.green { color: var(--green); } .word.amber { color: var(--amber); }
.word.red, .word.bad { color: var(--red); }
.filters { display: flex; flex-wrap: wrap; gap: .8rem 1.2rem; align-items: center; margin: 0 0 .8rem;
  padding: .6rem .8rem;
  background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; }
.filters input[type=search], .filters select { font: inherit; padding: .2rem .4rem; max-width: 16rem; }
.filters output { margin-left: auto; color: var(--dim); }
[hidden] { display: none; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.box rect { fill: var(--soft); stroke: var(--blue); stroke-width: 1.5; }
.box.weak rect { stroke: var(--amber); stroke-dasharray: 5 3; } .box.target rect { stroke: var(--dim); }
.box.told rect { stroke: var(--amber); stroke-width: 2.5; }
.box.ended rect, .box.bad rect { stroke: var(--red); stroke-width: 2.5; }
.box .name { font-weight: 600; } .box .about, .timeline .when { fill: var(--dim); font-size: 11px; }
.edge { stroke: var(--line); stroke-width: 2; }
.timeline .lane { stroke: var(--line); } .timeline text.lane { stroke: none; text-anchor: end; fill: var(--dim); }
.mark { stroke: var(--paper); stroke-width: 1; fill: var(--blue); } .mark.green { fill: var(--green); }
.mark.amber { fill: var(--amber); } .mark.red { fill: var(--red); } .mark.plain { fill: var(--blue); }
.mark.bad { fill: var(--red); stroke: var(--ink); }
.recording + .recording { margin-top: .4rem; }
footer { margin-top: 2rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--dim); }
@media print {
  :root { color-scheme: light; --ink: #000; --dim: #444; --line: #bbb; --paper: #fff; --soft: #fff; --green: #14532d;
    --amber: #7a4f00; --red: #8f1d14; --blue: #143d7a; }
  body { padding: 0; max-width: none; font-size: 9.5pt; }
  .filters { display: none; }
  tr, svg, .badge { break-inside: avoid; }
  h2 { break-after: avoid; }
  thead { display: table-header-group; }
  #steps thead th { position: static; }
  @page { size: A4 landscape; margin: 12mm; }
}
"""

SCRIPT: Final = """
"use strict";
(() => {
  const rows = Array.from(document.querySelectorAll(".step"));
  const texts = new Map();
  const by = (id) => document.getElementById(id);
  const [words, kind, target, telling, count] = ["words", "kind", "target", "telling", "count"].map(by);
  if (!words) return;
  const textOf = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
    return texts.get(row);
  };
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const marks = [kind.value, target.value, telling.checked ? "telling" : ""].filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const fits = marks.every((mark) => row.classList.contains(mark)) &&
        wanted.every((word) => textOf(row).includes(word));
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    const steps = rows.length === 1 ? "step" : "steps";
    count.textContent = shown === rows.length ? `${shown} ${steps}` : `${shown} of ${rows.length} ${steps}`;
  };
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const one of [words, kind, target, telling]) one.addEventListener("input", show);
  show();
})();
"""
