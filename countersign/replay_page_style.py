"""The replay page's own style and script, after those that it shares with the review's page.

Rules: neither names an address; the script scrolls to what is asked for, hides what the filters hide, and hands each
terminal's data to the player, which draws it; it puts no text into the page but a number.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
body { max-width: 100rem; }
.bar { position: sticky; top: 0; z-index: 3; background: var(--paper); padding: .6rem 0 .4rem; margin-top: 1rem;
  border-bottom: 1px solid var(--line); }
.bar .filters { margin: 0 0 .5rem; }
.jumps { display: flex; flex-wrap: wrap; gap: .4rem; }
.jumps button, .screen-tools button, nav button { font: inherit; color: var(--ink); cursor: pointer; }
.jumps button { padding: .15rem .6rem; border: 1px solid var(--line); border-radius: .4rem; background: var(--soft); }
.jumps button:hover, nav button:hover { border-color: var(--blue); color: var(--blue); }
kbd { font: 11px ui-monospace, monospace; border: 1px solid var(--line); border-radius: .2rem; padding: 0 .3rem;
  color: var(--dim); }
.replay { display: grid; grid-template-columns: minmax(14rem, 22rem) minmax(0, 1fr); gap: 1.5rem; align-items: start; }
nav { position: sticky; top: var(--bar, 7rem); max-height: calc(100vh - var(--bar, 7rem) - 1rem); overflow-y: auto;
  margin-top: 1rem; border-right: 1px solid var(--line); }
nav li { content-visibility: auto; contain-intrinsic-size: auto 1.6rem; }
nav ol { list-style: none; margin: 0; padding: 0 .5rem 0 0; }
nav button { display: block; width: 100%; text-align: left; border: 0; border-left: 3px solid transparent;
  background: none; padding: .25rem .5rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-size: 12px; }
nav button[aria-current] { background: var(--soft); border-left-color: var(--blue); }
nav .when, article .when { color: var(--dim); font-variant-numeric: tabular-nums; }
nav .name { color: var(--dim); font-size: 12px; font-weight: 600; padding: .6rem .5rem .2rem; }
nav .word { margin: 0 .5rem; }
main section:first-child h2 { margin-top: 1rem; border-top: 0; }
/* What is not on the screen is not laid out: a page may hold thousands. */
article.op { content-visibility: auto; contain-intrinsic-size: auto 9rem;
  border: 1px solid var(--line); border-left: 4px solid var(--green); border-radius: .4rem;
  padding: .6rem .9rem; margin: .9rem 0; scroll-margin-top: var(--bar, 7rem); }
article.op.k-approved, article.op.k-held { border-left-color: var(--amber); }
article.op.k-blocked, article.op.k-refused, article.op.k-other { border-left-color: var(--red); }
article.op:focus { outline: 2px solid var(--blue); outline-offset: 1px; }
article header { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: baseline; }
article header code { margin-left: auto; }
article p { margin: .2rem 0; }
.allowed, .told { color: var(--dim); } .told.amber { color: var(--amber); } .told.dim { color: var(--dim); }
.statement { background: var(--soft); border-radius: .3rem; padding: .5rem .7rem; margin: .4rem 0; font-size: 13px; }
.rows { overflow-x: auto; margin: .4rem 0; } .rows table { width: auto; font: 12px/1.45 ui-monospace, monospace; }
.rows td, .rows th { padding: .2rem .6rem; border: 1px solid var(--line); overflow-wrap: normal; max-width: 40rem; }
td.masked { color: var(--amber); font-weight: 600; } td.null { color: var(--dim); font-style: italic; }
.printed pre { max-height: 30rem; overflow: auto; border: 1px solid var(--line); border-radius: .3rem;
  padding: .4rem .7rem; }
.screen { max-width: 48rem; border: 1px solid var(--line); border-radius: .4rem; overflow: hidden; }
.screen-tools { display: flex; gap: .6rem; align-items: center; margin: .3rem 0; }
.screen-tools select { font: inherit; }
.licence { margin-top: 2rem; color: var(--dim); } .licence pre { max-height: 20rem; overflow: auto; }
::highlight(found) { background: #ffe08a; color: #1b1f24; }
@media (max-width: 60rem) { .replay { grid-template-columns: minmax(0, 1fr); } nav { position: static;
  max-height: 14rem; } .bar { position: static; } article.op { scroll-margin-top: 1rem; } }
@media print { .bar, nav, .screen, .screen-tools { display: none; } .replay { display: block; }
  .printed pre, .licence pre { max-height: none; } article.op { break-inside: auto; }
  .statement { border: 1px solid #bbb; } }
"""

SCRIPT: Final = """
(() => {
  const by = (id) => document.getElementById(id);
  const ops = Array.from(document.querySelectorAll("article.op"));
  const buttons = new Map(Array.from(document.querySelectorAll("nav button")).map((one) => [one.dataset.to, one]));
  const bar = document.querySelector(".bar");
  const measure = () => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight + 8}px`);
  let current = -1;
  const go = (place) => {
    const op = ops[place];
    if (!op) return;
    if (ops[current]) buttons.get(ops[current].id).removeAttribute("aria-current");
    current = place;
    buttons.get(op.id).setAttribute("aria-current", "true");
    buttons.get(op.id).scrollIntoView({ block: "nearest" });
    op.focus({ preventScroll: true });
    op.scrollIntoView({ block: "start" });
  };
  const step = (by, told) => {
    for (let place = current + by; place >= 0 && place < ops.length; place += by) {
      if (!ops[place].hidden && (!told || ops[place].classList.contains("telling"))) return go(place);
    }
    if (current < 0 && by < 0) return step(1, told);
  };
  const search = () => { by("words").focus(); by("words").select(); };
  const jumps = { next: () => step(1, false), previous: () => step(-1, false), "told-next": () => step(1, true),
    "told-previous": () => step(-1, true), search };
  const keys = { n: "next", p: "previous", N: "told-next", P: "told-previous", "/": "search" };
  document.querySelector("nav").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) go(ops.findIndex((op) => op.id === button.dataset.to));
  });
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button && jumps[button.dataset.jump]) jumps[button.dataset.jump]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea, .screen")) {
      if (event.key === "Escape") event.target.blur();
      if (event.key === "Enter" && event.target.id === "words") {
        current = -1;
        step(1, false);
        event.preventDefault();
      }
      return;
    }
    if (keys[event.key]) { jumps[keys[event.key]](); event.preventDefault(); }
  });
  const mark = () => {
    for (const op of ops) buttons.get(op.id).parentElement.hidden = op.hidden;
    if (typeof Highlight === "undefined" || !CSS.highlights) return;
    CSS.highlights.delete("found");
    const wanted = by("words").value.toLowerCase().split(/\\s+/).filter(Boolean);
    if (!wanted.length) return;
    const ranges = [];
    for (const op of ops) {
      if (op.hidden) continue;
      const walker = document.createTreeWalker(op, NodeFilter.SHOW_TEXT);
      while (walker.nextNode() && ranges.length < 2000) {
        const node = walker.currentNode;
        if (node.parentElement.closest("[hidden], .screen")) continue;
        const text = node.data.toLowerCase();
        for (const word of wanted) {
          let at = text.indexOf(word);
          for (; at >= 0 && ranges.length < 2000; at = text.indexOf(word, at + word.length)) {
            const range = new Range();
            range.setStart(node, at);
            range.setEnd(node, Math.min(at + word.length, node.data.length));
            ranges.push(range);
          }
        }
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  };
  for (const id of ["words", "kind", "target", "telling"]) by(id).addEventListener("input", mark);
  addEventListener("resize", measure);
  measure();
  const speeds = ["0.5", "1", "2", "4", "8", "16"];
  const play = (screen) => {
    const cast = JSON.parse(by(screen.dataset.cast).textContent);
    const tools = document.createElement("div");
    const label = document.createElement("label");
    const select = document.createElement("select");
    for (const speed of speeds) select.add(new Option(speed, speed, speed === "1", speed === "1"));
    label.append("speed ", select);
    tools.className = "screen-tools";
    tools.append(label);
    screen.before(tools);
    let player;
    const make = (speed) => {
      const options = { idleTimeLimit: cast[0].idle_time_limit, fit: "width", preload: true, controls: true, speed,
        poster: "npt:0.001", terminalFontFamily: "ui-monospace, monospace", theme: "asciinema" };
      player = AsciinemaPlayer.create({ data: cast }, screen, options);
    };
    let changing = Promise.resolve();
    const change = async () => {
      const [at, all] = [await player.getCurrentTime(), await player.getDuration()];
      player.dispose();
      make(Number(select.value));
      await player.seek(at || 0);
      if (!all || at < all - 0.1) await player.play();
    };
    select.addEventListener("input", () => { changing = changing.then(change, change); });
    make(1);
  };
  const screens = Array.from(document.querySelectorAll(".screen"));
  if (typeof AsciinemaPlayer === "undefined") return;
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      play(entry.target);
    }
  }, { rootMargin: "200px" });
  for (const screen of screens) seen.observe(screen);
})();
"""
