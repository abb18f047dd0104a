"""Every kind of statement that PostgreSQL's grammar has, with its class and its word.

Rules: a kind that is not here is not understood, and blocked: a new version of the grammar adds nothing silently. Kinds
whose class depends on what is in them (queries, COPY, SET, ALTER TABLE, ...) are read by ``statement``.

``privilege`` is what changes who may do what, or opens another way to the data: roles, rights, owners, row security,
other servers, replication, extensions, server settings, two-phase transactions (they outlive the session).
``define`` is what changes names and shapes; maintenance (VACUUM, REINDEX) belongs to it. TRUNCATE is ``write``.

Source: PostgreSQL 18 `src/backend/parser/gram.y`, rule ``stmt``; words as in the manual's SQL Commands.
"""

from __future__ import annotations

from typing import Any, Final

from broker.engines.postgres.statement_tree import Fields

DEFINE: Final = "sql:define"
_PRIVILEGE: Final = "sql:privilege"
_SESSION: Final = "sql:session"
_WRITE: Final = "sql:write"
_OPAQUE: Final = "sql:opaque"

# The kind of node with its class and its word.
FIXED: Final[dict[str, tuple[str, str]]] = {
    # session
    "VariableShowStmt": (_SESSION, "SHOW"),
    "ListenStmt": (_SESSION, "LISTEN"),
    "UnlistenStmt": (_SESSION, "UNLISTEN"),
    "ConstraintsSetStmt": (_SESSION, "SET CONSTRAINTS"),
    "DiscardStmt": (_SESSION, "DISCARD"),
    # write
    "NotifyStmt": (_WRITE, "NOTIFY"),
    "TruncateStmt": (_WRITE, "TRUNCATE"),
    "RefreshMatViewStmt": (_WRITE, "REFRESH MATERIALIZED VIEW"),
    # opaque: text or a body that was not read
    "DoStmt": (_OPAQUE, "DO"),
    "CallStmt": (_OPAQUE, "CALL"),
    # define
    "CreateStmt": (DEFINE, "CREATE TABLE"),
    "CreateSchemaStmt": (DEFINE, "CREATE SCHEMA"),
    "CreateSeqStmt": (DEFINE, "CREATE SEQUENCE"),
    "AlterSeqStmt": (DEFINE, "ALTER SEQUENCE"),
    "CreateDomainStmt": (DEFINE, "CREATE DOMAIN"),
    "AlterDomainStmt": (DEFINE, "ALTER DOMAIN"),
    "CompositeTypeStmt": (DEFINE, "CREATE TYPE"),
    "CreateEnumStmt": (DEFINE, "CREATE TYPE"),
    "CreateRangeStmt": (DEFINE, "CREATE TYPE"),
    "AlterEnumStmt": (DEFINE, "ALTER TYPE"),
    "AlterTypeStmt": (DEFINE, "ALTER TYPE"),
    "IndexStmt": (DEFINE, "CREATE INDEX"),
    "ReindexStmt": (DEFINE, "REINDEX"),
    "CreateStatsStmt": (DEFINE, "CREATE STATISTICS"),
    "AlterStatsStmt": (DEFINE, "ALTER STATISTICS"),
    "ViewStmt": (DEFINE, "CREATE VIEW"),
    "RuleStmt": (DEFINE, "CREATE RULE"),
    "CreateTrigStmt": (DEFINE, "CREATE TRIGGER"),
    "CommentStmt": (DEFINE, "COMMENT"),
    "ClusterStmt": (DEFINE, "CLUSTER"),
    "CreateConversionStmt": (DEFINE, "CREATE CONVERSION"),
    "CreateCastStmt": (DEFINE, "CREATE CAST"),
    "CreateOpClassStmt": (DEFINE, "CREATE OPERATOR CLASS"),
    "CreateOpFamilyStmt": (DEFINE, "CREATE OPERATOR FAMILY"),
    "AlterOpFamilyStmt": (DEFINE, "ALTER OPERATOR FAMILY"),
    "AlterOperatorStmt": (DEFINE, "ALTER OPERATOR"),
    "AlterCollationStmt": (DEFINE, "ALTER COLLATION"),
    "AlterTSDictionaryStmt": (DEFINE, "ALTER TEXT SEARCH DICTIONARY"),
    "AlterTSConfigurationStmt": (DEFINE, "ALTER TEXT SEARCH CONFIGURATION"),
    "AlterObjectDependsStmt": (DEFINE, "ALTER DEPENDS ON EXTENSION"),
    "ReplicaIdentityStmt": (DEFINE, "ALTER TABLE"),
    "AlterDatabaseRefreshCollStmt": (DEFINE, "ALTER DATABASE"),
    # roles and rights
    "GrantStmt": (_PRIVILEGE, "GRANT"),
    "GrantRoleStmt": (_PRIVILEGE, "GRANT"),
    "AlterDefaultPrivilegesStmt": (_PRIVILEGE, "ALTER DEFAULT PRIVILEGES"),
    "CreateRoleStmt": (_PRIVILEGE, "CREATE ROLE"),
    "AlterRoleStmt": (_PRIVILEGE, "ALTER ROLE"),
    "AlterRoleSetStmt": (_PRIVILEGE, "ALTER ROLE"),
    "DropRoleStmt": (_PRIVILEGE, "DROP ROLE"),
    "AlterOwnerStmt": (_PRIVILEGE, "ALTER OWNER"),
    "DropOwnedStmt": (_PRIVILEGE, "DROP OWNED"),
    "ReassignOwnedStmt": (_PRIVILEGE, "REASSIGN OWNED"),
    "CreatePolicyStmt": (_PRIVILEGE, "CREATE POLICY"),
    "AlterPolicyStmt": (_PRIVILEGE, "ALTER POLICY"),
    "SecLabelStmt": (_PRIVILEGE, "SECURITY LABEL"),
    # the server, other servers, replication, code
    "AlterSystemStmt": (_PRIVILEGE, "ALTER SYSTEM"),
    "AlterDatabaseSetStmt": (_PRIVILEGE, "ALTER DATABASE"),
    "AlterDatabaseStmt": (_PRIVILEGE, "ALTER DATABASE"),
    "CreatedbStmt": (_PRIVILEGE, "CREATE DATABASE"),
    "DropdbStmt": (_PRIVILEGE, "DROP DATABASE"),
    "CreateTableSpaceStmt": (_PRIVILEGE, "CREATE TABLESPACE"),
    "DropTableSpaceStmt": (_PRIVILEGE, "DROP TABLESPACE"),
    "AlterTableSpaceOptionsStmt": (_PRIVILEGE, "ALTER TABLESPACE"),
    "AlterTableMoveAllStmt": (_PRIVILEGE, "ALTER TABLE ALL IN TABLESPACE"),
    "CheckPointStmt": (_PRIVILEGE, "CHECKPOINT"),
    "LoadStmt": (_PRIVILEGE, "LOAD"),
    "CreateExtensionStmt": (_PRIVILEGE, "CREATE EXTENSION"),
    "AlterExtensionStmt": (_PRIVILEGE, "ALTER EXTENSION"),
    "AlterExtensionContentsStmt": (_PRIVILEGE, "ALTER EXTENSION"),
    "CreatePLangStmt": (_PRIVILEGE, "CREATE LANGUAGE"),
    "CreateTransformStmt": (_PRIVILEGE, "CREATE TRANSFORM"),
    "CreateAmStmt": (_PRIVILEGE, "CREATE ACCESS METHOD"),
    "CreateEventTrigStmt": (_PRIVILEGE, "CREATE EVENT TRIGGER"),
    "AlterEventTrigStmt": (_PRIVILEGE, "ALTER EVENT TRIGGER"),
    "CreateFdwStmt": (_PRIVILEGE, "CREATE FOREIGN DATA WRAPPER"),
    "AlterFdwStmt": (_PRIVILEGE, "ALTER FOREIGN DATA WRAPPER"),
    "CreateForeignServerStmt": (_PRIVILEGE, "CREATE SERVER"),
    "AlterForeignServerStmt": (_PRIVILEGE, "ALTER SERVER"),
    "CreateForeignTableStmt": (_PRIVILEGE, "CREATE FOREIGN TABLE"),
    "ImportForeignSchemaStmt": (_PRIVILEGE, "IMPORT FOREIGN SCHEMA"),
    "CreateUserMappingStmt": (_PRIVILEGE, "CREATE USER MAPPING"),
    "AlterUserMappingStmt": (_PRIVILEGE, "ALTER USER MAPPING"),
    "DropUserMappingStmt": (_PRIVILEGE, "DROP USER MAPPING"),
    "CreatePublicationStmt": (_PRIVILEGE, "CREATE PUBLICATION"),
    "AlterPublicationStmt": (_PRIVILEGE, "ALTER PUBLICATION"),
    "CreateSubscriptionStmt": (_PRIVILEGE, "CREATE SUBSCRIPTION"),
    "AlterSubscriptionStmt": (_PRIVILEGE, "ALTER SUBSCRIPTION"),
    "DropSubscriptionStmt": (_PRIVILEGE, "DROP SUBSCRIPTION"),
}

# Kinds that one field decides: (class, word) of the node's fields.
_PRIVILEGED_OBJECTS: Final = frozenset(
    {
        "OBJECT_ROLE", "OBJECT_POLICY", "OBJECT_EXTENSION", "OBJECT_LANGUAGE", "OBJECT_FDW", "OBJECT_FOREIGN_SERVER",
        "OBJECT_FOREIGN_TABLE", "OBJECT_PUBLICATION", "OBJECT_SUBSCRIPTION", "OBJECT_EVENT_TRIGGER", "OBJECT_DATABASE",
        "OBJECT_TABLESPACE", "OBJECT_USER_MAPPING", "OBJECT_TRANSFORM", "OBJECT_ACCESS_METHOD", "OBJECT_PARAMETER_ACL",
    }
)  # fmt: skip
_OBJECT_WORDS: Final = {
    "MATVIEW": "MATERIALIZED VIEW",
    "FDW": "FOREIGN DATA WRAPPER",
    "FOREIGN_SERVER": "SERVER",
    "TSPARSER": "TEXT SEARCH PARSER",
    "TSDICTIONARY": "TEXT SEARCH DICTIONARY",
    "TSTEMPLATE": "TEXT SEARCH TEMPLATE",
    "TSCONFIGURATION": "TEXT SEARCH CONFIGURATION",
    "OPCLASS": "OPERATOR CLASS",
    "OPFAMILY": "OPERATOR FAMILY",
    "STATISTIC_EXT": "STATISTICS",
    "COLUMN": "TABLE",
    "ATTRIBUTE": "TYPE",
    "TABCONSTRAINT": "TABLE",
    "DOMCONSTRAINT": "DOMAIN",
}
# Parts of ALTER TABLE that hand out or take away rights, or change which rows and triggers count.
_PRIVILEGED_CHANGES: Final = frozenset(
    {
        "AT_ChangeOwner", "AT_EnableRowSecurity", "AT_DisableRowSecurity", "AT_ForceRowSecurity",
        "AT_NoForceRowSecurity", "AT_EnableTrig", "AT_EnableAlwaysTrig", "AT_EnableReplicaTrig", "AT_DisableTrig",
        "AT_EnableTrigAll", "AT_DisableTrigAll", "AT_EnableTrigUser", "AT_DisableTrigUser", "AT_EnableRule",
        "AT_EnableAlwaysRule", "AT_EnableReplicaRule", "AT_DisableRule", "AT_GenericOptions",
        "AT_AlterColumnGenericOptions",
    }
)  # fmt: skip


def object_word(kind: str) -> str:
    """Return the manual's word for an ObjectType of the grammar (``OBJECT_MATVIEW`` -> ``MATERIALIZED VIEW``). Pure."""
    name = kind.removeprefix("OBJECT_")
    return _OBJECT_WORDS.get(name, name.replace("_", " "))


def by_object(kind: str, fields: Fields) -> tuple[str, str] | None:
    """Return class and word of the kinds that name the sort of object they are about, else None. Pure."""
    match kind:
        case "DropStmt":
            about, verb = fields.get("removeType", ""), "DROP"
        case "RenameStmt":
            about, verb = fields.get("renameType", ""), "ALTER"
        case "AlterObjectSchemaStmt":
            about, verb = fields.get("objectType", ""), "ALTER"
        case "DefineStmt":
            about, verb = fields.get("kind", ""), "CREATE"
        case "AlterTableStmt":
            about, verb = fields.get("objtype", ""), "ALTER"
        case _:
            return None
    changes = {command["AlterTableCmd"].get("subtype") for command in fields.get("cmds", ())}
    privileged = about in _PRIVILEGED_OBJECTS or changes & _PRIVILEGED_CHANGES
    return (_PRIVILEGE if privileged else DEFINE), f"{verb} {object_word(about)}"


def is_definer(fields: Fields) -> bool:
    """Whether CREATE or ALTER FUNCTION makes it run with its owner's rights, or with settings of its own. Pure."""
    options: Any = [*fields.get("options", ()), *fields.get("actions", ())]
    for option in options:
        item = option["DefElem"]
        if item.get("defname") == "set":
            return True
        if item.get("defname") == "security" and item.get("arg", {}).get("Boolean", {}).get("boolval", False):
            return True
    return False


def dropped(fields: Fields) -> list[tuple[str, ...]]:
    """Return the names that a DROP lists, each as its parts. Pure."""
    found: list[tuple[str, ...]] = []
    for item in fields.get("objects", ()):
        parts = item.get("List", {}).get("items") or item.get("ObjectWithArgs", {}).get("objname") or [item]
        names = tuple(part["String"].get("sval", "") for part in parts if "String" in part)
        if names:
            found.append(names)
    return found
