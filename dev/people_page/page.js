// Confirms or denies one login. Rule: whatever came from outside becomes a text node; no markup is ever parsed.
"use strict";

const find = (id) => document.getElementById(id);

function person(one, first) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const groups = document.createElement("small");
  label.className = "person";
  Object.assign(input, { type: "radio", name: "person", value: one.id, checked: first });
  groups.append(one.groups.join(", "));
  label.append(input, one.name, groups);
  return label;
}

async function decide(decision) {
  const chosen = document.querySelector("input[name=person]:checked");
  const answer = await fetch("/device", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user_code: find("code").value, person: chosen ? chosen.value : "", decision }),
  });
  const told = await answer.json();
  const said = find("said");
  said.className = answer.ok ? "" : "failed";
  said.textContent = !answer.ok ? told.error : decision === "deny" ? "Denied." : `You are ${told.person}. Back to your terminal.`;
  if (answer.ok) find("login").hidden = true;
}

find("login").addEventListener("submit", (event) => { event.preventDefault(); decide("confirm"); });
find("deny").addEventListener("click", () => decide("deny"));
find("code").value = new URLSearchParams(location.search).get("user_code") || "";
fetch("/people").then((answer) => answer.json())
  .then((people) => find("people").append(...people.map((one, place) => person(one, place === 0))));
