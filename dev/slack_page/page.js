// Draws the channel from /messages. Rule: whatever came from outside becomes a text node; no markup is ever parsed.
"use strict";

const REFRESH_MS = 600;  // a card should appear while the person is still looking for it
const EMOJI = {
  lock: "🔒", unlock: "🔓", warning: "⚠️", white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", no_entry: "⛔", no_entry_sign: "🚫",
  hourglass: "⌛", hourglass_flowing_sand: "⏳", key: "🔑", bust_in_silhouette: "👤", robot_face: "🤖", eyes: "👀", rotating_light: "🚨",
  shield: "🛡️", memo: "📝", link: "🔗", clock1: "🕐", stopwatch: "⏱️", question: "❓", dart: "🎯", raised_hand: "✋", octagonal_sign: "🛑",
};
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">" };

const find = (id) => document.getElementById(id);
const state = { people: [], me: "", drawn: "", busy: false };

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

const plain = (text) => text.replace(/&(?:amp|lt|gt);/g, (found) => ENTITIES[found])
  .replace(/:([a-z0-9_]+):/g, (found, name) => EMOJI[name] || found);
const decoded = (text) => text.replace(/&(?:amp|lt|gt);/g, (found) => ENTITIES[found]);

function nameOf(id) {
  const person = state.people.find((one) => one.id === id);
  return person ? person.name : id;
}

function control(inner) {
  const [what, label] = inner.split("|");
  if (what.startsWith("@")) return make("span", "mention", "@" + nameOf(what.slice(1)));
  if (what.startsWith("#")) return make("span", "mention", "#" + (label || what.slice(1)));
  if (what.startsWith("!date^")) return document.createTextNode(decoded(label || ""));
  if (what.startsWith("!")) return make("span", "mention", "@" + what.slice(1));
  const link = make("a", "", decoded(label || what));
  if (/^https?:\/\//.test(what)) { link.href = decoded(what); link.rel = "noreferrer noopener"; link.target = "_blank"; }
  return link;
}

// Inline mrkdwn: code first, since nothing inside it is formatted; then controls; then bold, italic, strike.
const INLINE = [
  [/`([^`\n]+)`/, (found) => make("code", "", decoded(found[1]))],
  [/<([^<>\n]+)>/, (found) => control(found[1])],
  [/(?<![\w*])\*([^*\n]+)\*(?![\w*])/, (found) => make("b", "", ...inline(found[1]))],
  [/(?<![\w_])_([^_\n]+)_(?![\w_])/, (found) => make("i", "", ...inline(found[1]))],
  [/(?<![\w~])~([^~\n]+)~(?![\w~])/, (found) => make("s", "", ...inline(found[1]))],
];

function inline(text) {
  let first = null;
  for (const [pattern, draw] of INLINE) {
    const found = pattern.exec(text);
    if (found && (!first || found.index < first.found.index)) first = { found, draw };
  }
  if (!first) return text ? [document.createTextNode(plain(text))] : [];
  const { found, draw } = first;
  return [...inline(text.slice(0, found.index)), draw(found), ...inline(text.slice(found.index + found[0].length))];
}

function lines(text) {
  const nodes = [];
  for (const line of text.split("\n")) {
    const quoted = /^(?:&gt;|>) ?(.*)$/.exec(line);
    if (quoted) { nodes.push(make("blockquote", "", ...inline(quoted[1]))); continue; }
    if (nodes.length && nodes[nodes.length - 1].nodeName !== "BLOCKQUOTE" && nodes[nodes.length - 1].nodeName !== "PRE") nodes.push(make("br"));
    nodes.push(...inline(line));
  }
  return nodes;
}

function rich(text) {
  return text.split(/```/).flatMap((part, place) => {
    if (place % 2) return [make("pre", "", decoded(part.replace(/^\n/, "")))];
    const outside = part.replace(/^\n|\n$/g, "");
    return outside ? lines(outside) : [];
  });
}

const words = (item) => (item.emoji === false ? decoded(item.text) : plain(item.text));
const textOf = (item) => (item.type === "mrkdwn" ? rich(item.text) : words(item).split("\n").flatMap((line, place) => (place ? [make("br"), line] : [line])));

function button(item, message) {
  const node = make("button", "button " + (item.style || ""), words(item.text));
  node.type = "button";
  // A button with an address opens it, and Slack tells the app that it was followed.
  if (/^https?:\/\//.test(item.url || "")) node.addEventListener("click", () => window.open(item.url, "_blank", "noopener,noreferrer"));
  node.addEventListener("click", () => (item.confirm ? ask(item.confirm, () => click(message, item, node)) : click(message, item, node)));
  return node;
}

function block(item, message) {
  switch (item.type) {
    case "header": return make("div", "header", words(item.text));
    case "divider": return make("hr", "divider");
    case "context": return make("div", "context", ...item.elements.map((one) => make("span", "", ...textOf(one))));
    case "actions": return make("div", "actions", ...item.elements.map((one) => button(one, message)));
    case "rich_text": return make("div", "", ...item.elements.map((one) => make("pre", "", one.elements.map((part) => part.text).join(""))));
    case "section": {
      const body = make("div", "section");
      const inside = make("div", "");
      if (item.text) inside.append(...textOf(item.text));
      if (item.fields) inside.append(make("div", "fields", ...item.fields.map((one) => make("div", "", ...textOf(one)))));
      body.append(inside);
      if (item.accessory) { body.classList.add("with-accessory"); body.append(button(item.accessory, message)); }
      return body;
    }
    default: return make("div", "context", "[" + item.type + "]");
  }
}

const clock = (ts) => new Date(Number(ts) * 1000).toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });

function message(item) {
  const blocks = make("div", "blocks", ...(item.blocks.length ? item.blocks.map((one) => block(one, item)) : [make("div", "section", ...rich(item.text))]));
  if (item.edited) blocks.append(make("span", "edited", "(edited)"));
  const whispers = item.ephemerals.filter((one) => one.user === state.me).map((one) => make("div", "ephemeral",
    make("small", "", "👁 Only visible to you"), ...(one.blocks.length ? one.blocks.map((each) => block(each, item)) : rich(one.text))));
  const time = make("time", "", clock(item.ts));
  const who = make("p", "who", make("b", "", "Countersign"), make("span", "tag", "APP"), time);
  const node = make("article", "message", make("div", "app"), make("div", "", who, blocks, ...whispers));
  node.dataset.ts = item.ts;
  node.dataset.state = item.state;
  return node;
}

function drawPeople() {
  find("people").replaceChildren(...state.people.map((person, place) => {
    const name = make("span", "", person.name, make("small", "", person.groups.length ? person.groups.join(", ") : "no approver"));
    const choose = make("button", "", make("span", "face face" + (place % 5), person.name.slice(0, 1)), name);
    choose.type = "button";
    choose.setAttribute("role", "radio");
    choose.setAttribute("aria-checked", String(person.id === state.me));
    choose.addEventListener("click", () => { state.me = person.id; state.drawn = ""; drawPeople(); refresh(); });
    return make("li", "", choose);
  }));
  find("composer").textContent = "Message #" + find("channel-name").textContent.slice(2) + " as " + nameOf(state.me);
}

function draw(messages) {
  const now = JSON.stringify(messages);
  if (now === state.drawn) return;
  const feed = find("feed");
  const atEnd = feed.scrollHeight - feed.scrollTop - feed.clientHeight < 120;
  state.drawn = now;
  feed.replaceChildren(...(messages.length ? messages.map(message) : [make("p", "empty", "No card yet. One appears here when a rule asks for a person.")]));
  const open = messages.filter((one) => one.state === "open").length;
  find("count").textContent = open ? open + (open === 1 ? " card waits" : " cards wait") : "nothing waits";
  if (atEnd) feed.scrollTop = feed.scrollHeight;
}

function toast(text) {
  const node = find("toast");
  node.textContent = text;
  node.classList.add("seen");
  setTimeout(() => node.classList.remove("seen"), 3500);
}

function ask(item, then) {
  const dialog = find("confirm");
  const [no, yes] = dialog.querySelectorAll("button");
  dialog.querySelector("h3").textContent = plain(item.title.text);
  dialog.querySelector("p").replaceChildren(...textOf(item.text));
  no.textContent = plain(item.deny.text);
  yes.textContent = plain(item.confirm.text);
  yes.className = "button " + (item.style || "primary");
  no.onclick = () => dialog.close();
  yes.onclick = () => { dialog.close(); then(); };
  dialog.showModal();
}

async function click(item, pressed, node) {
  node.disabled = true;
  try {
    const answer = await fetch("/click", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ message_ts: item.ts, action_id: pressed.action_id, user_id: state.me }),
    });
    const told = await answer.json();
    toast(told.ok ? nameOf(state.me) + " pressed " + plain(pressed.text.text) : "The app answered " + (told.status || answer.status) + ": " + (told.error || told.body || ""));
  } catch (error) {
    toast("The stack is not there any more.");
  }
  node.disabled = false;
  refresh();
}

async function refresh() {
  if (state.busy) return;
  state.busy = true;
  try {
    draw(await (await fetch("/messages")).json());
  } catch (error) {
    find("count").textContent = "the stack has stopped";
  }
  state.busy = false;
}

async function begin() {
  const workspace = await (await fetch("/workspace")).json();
  state.people = workspace.people;
  state.me = workspace.people.length ? workspace.people[0].id : "";
  find("channel-name").textContent = "# " + workspace.channel;
  find("channel-item").textContent = "# " + workspace.channel;
  drawPeople();
  await refresh();
  setInterval(refresh, REFRESH_MS);
}

begin();
