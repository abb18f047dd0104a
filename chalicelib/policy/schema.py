"""The Cedar schema: what a policy may speak of. Policies are checked against it when a bundle is loaded, entities and
context when a decision is made.

Rules: what is not here cannot be read by a policy. So nothing that the asker writes (a reason, a display name) is
here: the requester's own text never lowers a threshold. An identity's evidence attributes (``ref``, ``environment``,
``repository``, ... as its issuer's declaration keeps them) are Cedar *entity tags* of the Actor: which ones there are
differs by issuer, so a policy asks ``principal.hasTag("ref") && principal.getTag("ref") == "refs/heads/main"``, and the
validator refuses a ``getTag`` without its ``hasTag``.

Source: Cedar schema grammar, https://docs.cedarpolicy.com/schema/human-readable-schema.html
"""

from __future__ import annotations

from typing import Final

SERVICE: Final = "countersign"

# Cedar's record types do not extend one another, so the fields that every action has are written in twice from here.
_COMMON: Final = """
    originator: String,        // issuer#subject of the identity that the whole chain acts for
    chain: Set<String>,        // issuer#subject of every identity of the chain
    depth: Long,               // delegation steps below the originator; 0 is the originator itself
    min_assurance: String,     // the weakest of the chain: attested, vouched or bearer
    trigger_known: Bool,       // whether the people behind the run are known
    principal: String,         // the login on the target; empty where the resource is the service
    met: Set<String>,          // rules whose requirements are met; read only by the rule itself
    time: { hour: Long, weekday: Long },  // UTC; weekday 1 is Monday
"""

CEDAR_SCHEMA: Final = f"""
entity Team;
entity Issuer;
entity Env;

// The leaf of the chain: who acts now. Tags are what its issuer's declaration keeps.
entity Actor in [Team, Issuer] = {{ issuer: String, subject: String, assurance: String, depth: Long }} tags String;

// tags are "key=value", from targets.yaml
entity Target in [Env] = {{ protocol: String, tags: Set<String> }};

// Service::"countersign" alone: what is done to this service itself. It has a target's attributes, all of them empty,
// so that a rule for every resource may read them.
entity Service = {{ protocol: String, tags: Set<String> }};

type Opening = {{{_COMMON}
    duration_s: Long,
}};

type Statement = {{{_COMMON}
    statement: String,             // SELECT, DELETE, DROP TABLE, ...
    tables: Set<String>,           // schema.table
    columns: Set<String>,          // schema.table.column; .* is the whole row; ?.column where the table is not proved
    functions: Set<String>,        // as written: count, pg_catalog.now
    has_where: Bool,               // false: every row
    reads_masked: Bool,            // it reads a column that a mask rule names
    masked_outside_output: Bool,   // and uses it elsewhere than in a plain output list
}};

type Ssh = {{{_COMMON}
    command: String,         // the words joined by one space, in quotes where not plain; empty where not literal
    program: String,         // uptime also for /usr/bin/uptime, else the path as it stands; empty where not literal
    arguments: Set<String>,  // the other words, unquoted
    terminal: Bool,          // a terminal was asked for
}};

type Administration = {{{_COMMON}
    // delegate: key or issuer, which names the redeemer; revoke: its kind; review: chain, session, signoff or replay;
    // evidence:hold and evidence:lift: session, chain or target
    what: String,
}};

action "session:open" appliesTo {{ principal: [Actor], resource: [Target], context: Opening }};

action "sql";  // the group: never asked about itself
action "sql:read", "sql:write", "sql:define", "sql:session", "sql:privilege", "sql:derives_masked", "sql:opaque"
    in ["sql"] appliesTo {{ principal: [Actor], resource: [Target], context: Statement }};

// Asked beside another: may what it answers be counted and left out of the record? In no group, so that no rule for all
// of "sql" or "ssh" permits it, and with the context of the operation itself.
action "sql:record_less" appliesTo {{ principal: [Actor], resource: [Target], context: Statement }};
action "ssh:record_less" appliesTo {{ principal: [Actor], resource: [Target], context: Ssh }};

action "ssh";  // the group: never asked about itself
action "ssh:exec", "ssh:shell", "ssh:opaque" in ["ssh"]
    appliesTo {{ principal: [Actor], resource: [Target], context: Ssh }};

action "chain";  // the group: never asked about itself
action "chain:delegate", "chain:revoke", "chain:review" in ["chain"]
    appliesTo {{ principal: [Actor], resource: [Service], context: Administration }};

// Put a legal hold on evidence, and lift one. In no group: who may end chains may not let evidence of them go.
action "evidence:hold" appliesTo {{ principal: [Actor], resource: [Service], context: Administration }};
action "evidence:lift" appliesTo {{ principal: [Actor], resource: [Service], context: Administration }};
"""
