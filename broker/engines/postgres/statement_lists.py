"""The functions, settings and relations of PostgreSQL that are not what their volatility or verb says, each list with
its reason.

``provolatile`` tells only whether a result may change; it does not tell reach. A STABLE ``query_to_xml`` runs any SQL
text, a VOLATILE ``random`` does nothing. So: what reaches past the database or hands out rights is ``privilege``; what
runs text that was not read is ``opaque``; what only looks volatile is ``read``; every other volatile one is ``write``.
Names count in every schema: extensions are installed anywhere.

Source: PostgreSQL 15 manual, 9 Functions, 20 Server Configuration, F Additional Modules (dblink, tablefunc, xml2,
pageinspect, adminpack, file_fdw); `SELECT proname FROM pg_proc WHERE provolatile = 'v'` of PostgreSQL 15 and 17.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Reads, writes or lists files of the server; large objects to and from files.
_FILES: Final = _words(
    """
    pg_read_file pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir pg_ls_waldir pg_ls_tmpdir
    pg_ls_archive_statusdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_summariesdir
    pg_current_logfile pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings lo_import lo_export
    pg_file_write pg_file_read pg_file_rename pg_file_unlink pg_file_sync pg_file_length pg_logdir_ls
    pg_logfile_rotate pg_rotate_logfile pg_rotate_logfile_old
    """
)
# Opens a connection of the server's own, past this broker.
_CONNECTS: Final = _words(
    """
    dblink dblink_connect dblink_connect_u dblink_disconnect dblink_exec dblink_open dblink_fetch dblink_close
    dblink_send_query dblink_get_result dblink_get_connections dblink_get_notify dblink_is_busy
    dblink_error_message dblink_cancel_query dblink_fdw_validator postgres_fdw_disconnect
    postgres_fdw_disconnect_all postgres_fdw_get_connections
    """
)
# Acts on other sessions or on the server itself.
_SERVER: Final = _words(
    """
    pg_terminate_backend pg_cancel_backend pg_reload_conf pg_promote pg_switch_wal pg_create_restore_point
    pg_backup_start pg_backup_stop pg_start_backup pg_stop_backup pg_wal_replay_pause pg_wal_replay_resume
    pg_log_backend_memory_contexts pg_stat_reset pg_stat_reset_shared pg_stat_reset_slru
    pg_stat_reset_single_table_counters pg_stat_reset_single_function_counters pg_stat_reset_replication_slot
    pg_stat_reset_subscription_stats pg_stat_statements_reset pg_stat_have_stats pg_import_system_collations
    pg_nextoid pg_stop_making_pinned_objects pg_extension_config_dump pg_set_relation_stats
    pg_clear_relation_stats pg_restore_relation_stats pg_restore_attribute_stats pg_clear_attribute_stats
    binary_upgrade_set_record_init_privs
    """
)
# Reads every change or page of the database past tables, columns and row security; replication slots and origins.
_PAST_TABLES: Final = _words(
    """
    pg_logical_slot_get_changes pg_logical_slot_peek_changes pg_logical_slot_get_binary_changes
    pg_logical_slot_peek_binary_changes pg_create_logical_replication_slot pg_create_physical_replication_slot
    pg_copy_logical_replication_slot pg_copy_physical_replication_slot pg_drop_replication_slot
    pg_replication_slot_advance pg_sync_replication_slots pg_logical_emit_message pg_replication_origin_create
    pg_replication_origin_drop pg_replication_origin_session_setup pg_replication_origin_session_reset
    pg_replication_origin_xact_setup pg_replication_origin_xact_reset pg_replication_origin_advance
    pg_get_wal_record_info pg_get_wal_records_info pg_get_wal_block_info pg_get_wal_fpi_info
    pg_get_wal_records_info_till_end_of_wal get_raw_page heap_page_items heap_page_item_attrs tuple_data_split
    bt_page_items bt_page_stats bt_metap brin_page_items gin_leafpage_items gin_page_opaque_info gist_page_items
    gist_page_items_bytea hash_page_items fsm_page_contents page_header heap_tuple_infomask_flags
    heap_force_freeze heap_force_kill pg_truncate_visibility_map
    """
)
# Runs, or reads tables by, a text or name that the parse does not show.
OPAQUE_FUNCTIONS: Final = _words(
    """
    query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema table_to_xml
    table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
    database_to_xml database_to_xmlschema database_to_xml_and_xmlschema ts_stat ts_rewrite crosstab crosstab2
    crosstab3 crosstab4 crosstabn crosstab_hash connectby xpath_table plpgsql_call_handler
    plpgsql_inline_handler lo_get loread
    """
)
PRIVILEGE_FUNCTIONS: Final = _FILES | _CONNECTS | _SERVER | _PAST_TABLES
# Volatile by their catalogue entry, without an effect that outlives the session: what they return changes, no more.
# pg_sleep holds a connection that the caller has anyway; advisory locks end with the session.
HARMLESS_VOLATILE: Final = _words(
    """
    random random_normal setseed clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7 pg_sleep pg_sleep_for
    pg_sleep_until currval lastval pg_sequence_last_value txid_current txid_current_if_assigned
    pg_current_xact_id pg_current_xact_id_if_assigned txid_status pg_xact_status txid_current_snapshot
    pg_current_snapshot pg_export_snapshot pg_snapshot_xip pg_is_in_recovery pg_is_in_backup
    pg_is_wal_replay_paused pg_get_wal_replay_pause_state pg_current_wal_lsn pg_current_wal_insert_lsn
    pg_current_wal_flush_lsn pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
    pg_relation_size pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size
    pg_relation_filepath pg_column_size pg_lock_status pg_blocking_pids pg_safe_snapshot_blocking_pids
    pg_isolation_test_session_is_blocked pg_prepared_statement pg_prepared_xact pg_cursor pg_listening_channels
    pg_stat_get_activity pg_stat_get_progress_info pg_stat_clear_snapshot pg_stat_force_next_flush
    pg_stat_get_wal_receiver pg_stat_get_xact_numscans pg_stat_get_xact_tuples_returned
    pg_stat_get_xact_tuples_fetched pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_updated
    pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_blocks_fetched
    pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls pg_stat_get_xact_function_total_time
    pg_stat_get_xact_function_self_time pg_get_shmem_allocations pg_get_backend_memory_contexts
    pg_show_all_settings pg_settings_get_flags pg_control_checkpoint pg_control_system pg_control_init
    pg_control_recovery pg_ts_parser_is_visible pg_partition_tree pg_partition_ancestors pg_sequence_parameters
    pg_get_multixact_members pg_timezone_abbrevs pg_timezone_names pg_config pg_lock_status
    pg_notification_queue_usage pg_stat_get_wal_senders pg_advisory_lock pg_advisory_lock_shared
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
    pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_advisory_unlock pg_advisory_unlock_shared
    pg_advisory_unlock_all pg_get_replication_slots pg_stat_get_replication_slot
    pg_show_replication_origin_status pg_replication_origin_session_is_setup pg_replication_origin_progress
    pg_replication_origin_session_progress generate_subscripts suppress_redundant_updates_trigger
    """
)

# A second way in, or another meaning for what was approved: who we are, which table a name means, how text is read,
# whether triggers fire, what the target's own log says.
_GUARDED_SETTINGS: Final = _words(
    """
    role session_authorization search_path application_name client_encoding standard_conforming_strings
    session_replication_role session_preload_libraries local_preload_libraries dynamic_library_path
    allow_system_table_mods ignore_system_indexes zero_damaged_pages lo_compat_privileges createrole_self_grant
    backslash_quote transform_null_equals
    """
)
_GUARDED_PREFIXES: Final = ("log_", "pgaudit.", "auto_explain.")
# Many drivers set these, to what the broker pins anyway.
_HARMLESS_VALUES: Final = {
    "client_encoding": frozenset({"utf8", "utf-8", "unicode"}),
    "standard_conforming_strings": frozenset({"on", "true", "yes", "1"}),
}

# Passwords, connection strings of other servers, the server's own access rules.
SECRET_RELATIONS: Final = _words(
    """
    pg_authid pg_shadow pg_user_mapping pg_user_mappings pg_subscription pg_foreign_server pg_hba_file_rules
    pg_ident_file_mappings pg_file_settings
    """
)


def is_guarded_setting(name: str, values: tuple[str, ...] | None) -> bool:
    """Whether setting ``name`` to ``values`` (None: reset, to default, or not known) may change what the broker relies
    on. Names are compared as PostgreSQL does, without case. Pure."""
    name = name.lower()
    if values is not None and len(values) == 1 and values[0].lower() in _HARMLESS_VALUES.get(name, ()):
        return False
    return name in _GUARDED_SETTINGS or name.startswith(_GUARDED_PREFIXES)
