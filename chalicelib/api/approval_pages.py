"""The two pages that people open: the one on which an Ask is answered with a passkey, and the one that registers one.

Rules: each is the same for everybody, one file with one style and one script that its own policy knows by hash; it
fetches its card from this service and nothing from anywhere else; what came from outside becomes a text node, and no
mark-up is ever parsed. It may not be framed: a click inside another site's page must not be one here.

What it cannot do: prove to a person that the server which sent the page shows what ``decide`` will be asked about. The
digest is on the page and on the Slack card, which another role posts, for who wants to compare.
Source: CSP Level 3; W3C Web Authentication Level 3, sections 5.1.3, 5.1.4 and 13.4.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5b6470; --line: #d5dae1; --paper: #ffffff; --soft: #f5f7f9;
  --green: #1a7f37; --red: #b42318; --amber: #9a6700; --blue: #1f5fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #9aa4b2; --line: #363d47; --paper: #14181d;
  --soft: #1c2127; --green: #3fa34d; --red: #ff7b72; --amber: #e3b341; --blue: #79b8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 46rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: .8rem; margin: 1.3rem 0 .3rem; color: var(--dim); font-weight: 600; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
#card p { white-space: pre-line; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
pre { font: 13px/1.5 ui-monospace, monospace; margin: 0; padding: .7rem .9rem; background: var(--soft);
  border: 1px solid var(--line); border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
hr { border: 0; border-top: 1px solid var(--line); margin: 1.3rem 0; }
small { display: block; color: var(--dim); margin-top: 1.2rem; overflow-wrap: anywhere; }
label { display: block; margin: .9rem 0; color: var(--dim); }
input { display: block; width: 100%; margin-top: .2rem; font: inherit; color: var(--ink); padding: .45rem .6rem;
  border: 1px solid var(--line); border-radius: .4rem; background: var(--paper); }
.actions { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.4rem 0 0; }
button { font: 600 15px/1 inherit; font-family: inherit; min-height: 2.7rem; padding: 0 1.2rem; border-radius: .4rem;
  border: 1px solid var(--line); background: var(--soft); color: var(--ink); cursor: pointer; }
button.yes { background: #1a7f37; border-color: #1a7f37; color: #fff; }
button.no { border-color: var(--red); color: var(--red); background: none; }
button:disabled { opacity: .5; cursor: default; }
button:focus-visible, input:focus-visible { outline: 3px solid var(--blue); outline-offset: 2px; }
#told { margin: 1.2rem 0 0; padding: .7rem .9rem; border-left: 4px solid var(--line); background: var(--soft); }
#told:empty { display: none; }
#told.good { border-color: var(--green); } #told.bad { border-color: var(--red); }
#told.weak { border-color: var(--amber); }
[hidden] { display: none !important; }
"""

_SHARED: Final = """
"use strict";
const by = (id) => document.getElementById(id);
const made = (name, text) => { const node = document.createElement(name); node.textContent = text; return node; };
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
const base64url = (buffer) => base64(buffer).replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=+$/, "");
const tell = (look, text) => { by("told").className = look; by("told").textContent = text; };
const refused = (error) => error.name === "NotAllowedError"
  ? "Nothing was sent: the passkey was not used, or not in time."
  : `Nothing was sent: ${error.message || error.name}. A passkey works over https, on the host that it was made for.`;
"""

_APPROVE_SCRIPT: Final = f"""{_SHARED}
(() => {{
  const here = location.pathname.replace(/\\/approve$/, "");
  const asked = {{ credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" }};
  const ended = {{ approved: "This was approved.", refused: "This was refused.",
    withdrawn: "This was withdrawn by who asked.", expired: "This has expired: nobody answered in time." }};
  const plain = (item) => item.text.replace(/&(amp|lt|gt);/g, (_, name) => ({{ amp: "&", lt: "<", gt: ">" }})[name]);
  const label = (item) => (item.type === "mrkdwn" ? item.text.replace(/^\\*|\\*$/g, "") : plain(item));
  const fields = (items) => {{
    const list = document.createElement("dl");
    items.forEach((item, place) => list.append(made(place % 2 ? "dd" : "dt", label(item))));
    return list;
  }};
  const drawn = (block) => {{
    switch (block.type) {{
      case "header": return made("h1", plain(block.text));
      case "section": return block.fields ? fields(block.fields)
        : made(block.text.type === "mrkdwn" ? "h2" : "p", label(block.text));
      case "rich_text": return made("pre", block.elements[0].elements[0].text);
      case "context": return made("small", block.elements.map(plain).join(" "));
      case "divider": return document.createElement("hr");
      default: throw new Error(`a block of the kind ${{block.type}}`);
    }}
  }};
  const buttons = [by("yes"), by("no")];
  let card = null;
  const show = (shown) => {{
    card = shown.card || null;
    by("actions").hidden = card === null;
    const nodes = card ? card.blocks.filter((block) => block.type !== "actions").map(drawn) : [made("h1", "Approval")];
    by("card").replaceChildren(...nodes);
    if (!card) tell(shown.status === "approved" ? "good" : "weak", ended[shown.status] || "This is not open any more.");
  }};
  const load = async () => {{
    const answer = await fetch(`${{here}}/card`, asked);
    const said = await answer.json();
    if (!answer.ok) throw new Error(`${{said.message || said.code}}`);
    show(said);
  }};
  const answer = async (approved) => {{
    buttons.forEach((button) => {{ button.disabled = true; }});
    tell("", "Waiting for your passkey …");
    try {{
      const challenge = bytes(approved ? card.approve_challenge : card.deny_challenge);
      const given = await navigator.credentials.get({{
        publicKey: {{ challenge, userVerification: "required", timeout: 120000 }},
      }});
      const said = given.response;
      const body = JSON.stringify({{
        approved,
        card_sha256: card.card_sha256,
        passkey_id: base64url(given.rawId),
        client_data: base64url(said.clientDataJSON),
        authenticator_data: base64url(said.authenticatorData),
        signature: base64url(said.signature),
      }});
      const post = () => fetch(`${{here}}/answers`,
        {{ ...asked, method: "POST", headers: {{ "content-type": "application/json" }}, body }});
      let broken = false;
      // Once more where the connection broke: a person answers once, so that what arrived twice counts once.
      const sent = await post().catch(() => {{ broken = true; return post(); }}).catch(() => null);
      if (sent === null || (broken && !sent.ok)) {{
        tell("bad", "The connection broke: open this page again to see whether it counted.");
        return;
      }}
      const told = await sent.json();
      if (!sent.ok) {{ tell("bad", `Not counted (${{told.code}}): ${{told.message}}. ${{told.hint}}`); return; }}
      by("actions").hidden = true;
      tell(approved ? "good" : "weak", told.text);
    }} catch (error) {{
      tell("bad", refused(error));
    }} finally {{
      buttons.forEach((button) => {{ button.disabled = false; }});
    }}
  }};
  by("yes").addEventListener("click", () => answer(true));
  by("no").addEventListener("click", () => answer(false));
  load().catch((error) => {{
    by("actions").hidden = true;
    by("card").replaceChildren(made("h1", "Approval"));
    tell("bad", `This cannot be shown: ${{error.message}}`);
  }});
}})();
"""

_REGISTER_SCRIPT: Final = f"""{_SHARED}
(() => {{
  const lines = async (made, person) => {{
    const key = made.response.getPublicKey();
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", key));
    const print = Array.from(hash.slice(0, 8), (one) => one.toString(16).padStart(2, "0")).join("");
    by("print").textContent = print.replace(/(.{{4}})(?=.)/g, "$1 ");
    return [
      `    passkeys:                # of ${{person}}; fingerprint ${{print}}`,
      `      - id: "${{base64url(made.rawId)}}"`,
      `        public_key: "${{base64(key)}}"`,
      `        rp: "${{location.hostname}}"`,
      `        note: ${{JSON.stringify(by("note").value.trim() || "passkey")}}`,
      "",
    ].join("\\n");
  }};
  const register = async (person) => {{
    const random = () => crypto.getRandomValues(new Uint8Array(32));
    // No attestation is asked for: that the key is this person's is vouched for by who reviews and signs the bundle.
    const created = await navigator.credentials.create({{
      publicKey: {{
        rp: {{ name: "Countersign" }},
        user: {{ id: random(), name: person, displayName: person }},
        challenge: random(),
        pubKeyCredParams: [{{ type: "public-key", alg: -7 }}, {{ type: "public-key", alg: -257 }}],
        authenticatorSelection: {{ residentKey: "required", requireResidentKey: true, userVerification: "required" }},
        attestation: "none",
        timeout: 120000,
      }},
    }});
    by("line").textContent = await lines(created, person);
    by("made").hidden = false;
    tell("good", "Made. Give these lines to whoever keeps approvers.yaml; read them the fingerprint over another way.");
  }};
  by("form").addEventListener("submit", (event) => {{
    event.preventDefault();
    const person = by("person").value.trim();
    if (!/^[A-Za-z0-9][A-Za-z0-9@._+-]{{0,127}}$/.test(person)) {{
      tell("bad", "Your id is the one at your identity provider, as approvers.yaml has it.");
      return;
    }}
    tell("", "Waiting for your authenticator …");
    register(person).catch((error) => tell("bad", refused(error)));
  }});
}})();
"""

_APPROVE_BODY: Final = """<main id="card" aria-live="polite"><h1>Approval</h1></main>
<div class="actions" id="actions" hidden><button type="button" class="yes" id="yes">Approve with a passkey</button>
<button type="button" class="no" id="no">Deny with a passkey</button></div>
<p id="told" role="status"></p>
<noscript><p>This page needs its script to ask for your passkey.</p></noscript>
"""

_REGISTER_BODY: Final = """<main><h1>Register a passkey for approvals</h1>
<p>It stays on your device or security key, and answers what rules marked for a passkey ask. What this page makes is one
entry of approvers.yaml: it counts once the configuration that holds it was reviewed and signed.</p>
<form id="form" autocomplete="off">
<label>Your id at the identity provider <input id="person" maxlength="128" required></label>
<label>Which one this is <input id="note" maxlength="60" placeholder="blue security key"></label>
<div class="actions"><button type="submit" class="yes" id="create">Make a passkey</button></div></form>
<p id="told" role="status"></p>
<div id="made" hidden><h2>For approvers.yaml, under your name</h2><pre id="line"></pre>
<h2>Fingerprint, to be compared over another way</h2><pre id="print"></pre></div></main>
<noscript><p>This page needs its script to make a passkey.</p></noscript>
"""


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(title: str, body: str, script: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}<script>{script}</script>\n</body></html>\n"
    )


def _headers(script: str) -> Mapping[str, str]:
    policy = (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(script)}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
    }


APPROVE_PAGE: Final = _page("Approval · Countersign", _APPROVE_BODY, _APPROVE_SCRIPT)
APPROVE_HEADERS: Final = _headers(_APPROVE_SCRIPT)
REGISTER_PAGE: Final = _page("Register a passkey · Countersign", _REGISTER_BODY, _REGISTER_SCRIPT)
REGISTER_HEADERS: Final = _headers(_REGISTER_SCRIPT)
