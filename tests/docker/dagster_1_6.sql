-- A run with an asset in the tables of dagster 1.6.14 and dagster-postgres 0.22.14, by pg_dump --inserts.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.asset_check_executions (
    id bigint NOT NULL,
    asset_key text,
    check_name text,
    partition text,
    run_id character varying(255),
    execution_status character varying(255),
    evaluation_event text,
    evaluation_event_timestamp timestamp without time zone,
    evaluation_event_storage_id bigint,
    materialization_event_storage_id bigint,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.asset_check_executions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.asset_check_executions_id_seq OWNED BY public.asset_check_executions.id;
CREATE TABLE public.asset_daemon_asset_evaluations (
    id bigint NOT NULL,
    evaluation_id bigint,
    asset_key text,
    asset_evaluation_body text,
    num_requested integer,
    num_skipped integer,
    num_discarded integer,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.asset_daemon_asset_evaluations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.asset_daemon_asset_evaluations_id_seq OWNED BY public.asset_daemon_asset_evaluations.id;
CREATE TABLE public.asset_event_tags (
    id bigint NOT NULL,
    event_id bigint,
    asset_key text NOT NULL,
    key text NOT NULL,
    value text,
    event_timestamp timestamp without time zone
);
CREATE SEQUENCE public.asset_event_tags_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.asset_event_tags_id_seq OWNED BY public.asset_event_tags.id;
CREATE TABLE public.asset_keys (
    id bigint NOT NULL,
    asset_key character varying(512),
    last_materialization text,
    last_run_id character varying(255),
    asset_details text,
    wipe_timestamp timestamp without time zone,
    last_materialization_timestamp timestamp without time zone,
    tags text,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    cached_status_data text
);
CREATE SEQUENCE public.asset_keys_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.asset_keys_id_seq OWNED BY public.asset_keys.id;
CREATE TABLE public.bulk_actions (
    id bigint NOT NULL,
    key character varying(32) NOT NULL,
    status character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    body text,
    action_type character varying(32),
    selector_id text
);
CREATE SEQUENCE public.bulk_actions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.bulk_actions_id_seq OWNED BY public.bulk_actions.id;
CREATE TABLE public.concurrency_limits (
    id bigint NOT NULL,
    concurrency_key character varying(512) NOT NULL,
    "limit" integer NOT NULL,
    update_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.concurrency_limits_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.concurrency_limits_id_seq OWNED BY public.concurrency_limits.id;
CREATE TABLE public.concurrency_slots (
    id bigint NOT NULL,
    concurrency_key text NOT NULL,
    run_id text,
    step_key text,
    deleted boolean NOT NULL,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.concurrency_slots_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.concurrency_slots_id_seq OWNED BY public.concurrency_slots.id;
CREATE TABLE public.daemon_heartbeats (
    id bigint NOT NULL,
    daemon_type character varying(255) NOT NULL,
    daemon_id character varying(255),
    "timestamp" timestamp without time zone NOT NULL,
    body text
);
CREATE SEQUENCE public.daemon_heartbeats_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.daemon_heartbeats_id_seq OWNED BY public.daemon_heartbeats.id;
CREATE TABLE public.dynamic_partitions (
    id bigint NOT NULL,
    partitions_def_name text NOT NULL,
    partition text NOT NULL,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.dynamic_partitions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.dynamic_partitions_id_seq OWNED BY public.dynamic_partitions.id;
CREATE TABLE public.event_logs (
    id bigint NOT NULL,
    run_id character varying(255),
    event text NOT NULL,
    dagster_event_type text,
    "timestamp" timestamp without time zone,
    step_key text,
    asset_key text,
    partition text
);
CREATE SEQUENCE public.event_logs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.event_logs_id_seq OWNED BY public.event_logs.id;
CREATE TABLE public.instance_info (
    id bigint NOT NULL,
    run_storage_id text
);
CREATE SEQUENCE public.instance_info_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.instance_info_id_seq OWNED BY public.instance_info.id;
CREATE TABLE public.instigators (
    id bigint NOT NULL,
    selector_id character varying(255),
    repository_selector_id character varying(255),
    status character varying(63),
    instigator_type character varying(63),
    instigator_body text,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    update_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.instigators_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.instigators_id_seq OWNED BY public.instigators.id;
CREATE TABLE public.job_ticks (
    id bigint NOT NULL,
    job_origin_id character varying(255),
    selector_id character varying(255),
    status character varying(63),
    type character varying(63),
    "timestamp" timestamp without time zone,
    tick_body text,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    update_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.job_ticks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.job_ticks_id_seq OWNED BY public.job_ticks.id;
CREATE TABLE public.jobs (
    id bigint NOT NULL,
    job_origin_id character varying(255),
    selector_id character varying(255),
    repository_origin_id character varying(255),
    status character varying(63),
    job_type character varying(63),
    job_body text,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    update_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.jobs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.jobs_id_seq OWNED BY public.jobs.id;
CREATE TABLE public.kvs (
    id bigint NOT NULL,
    key text NOT NULL,
    value text
);
CREATE SEQUENCE public.kvs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.kvs_id_seq OWNED BY public.kvs.id;
CREATE TABLE public.pending_steps (
    id bigint NOT NULL,
    concurrency_key text NOT NULL,
    run_id text,
    step_key text,
    priority integer,
    assigned_timestamp timestamp without time zone,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP
);
CREATE SEQUENCE public.pending_steps_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.pending_steps_id_seq OWNED BY public.pending_steps.id;
CREATE TABLE public.run_tags (
    id bigint NOT NULL,
    run_id character varying(255),
    key text,
    value text
);
CREATE SEQUENCE public.run_tags_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.run_tags_id_seq OWNED BY public.run_tags.id;
CREATE TABLE public.runs (
    id bigint NOT NULL,
    run_id character varying(255),
    snapshot_id character varying(255),
    pipeline_name text,
    mode text,
    status character varying(63),
    run_body text,
    partition text,
    partition_set text,
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    update_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    start_time double precision,
    end_time double precision
);
CREATE SEQUENCE public.runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.runs_id_seq OWNED BY public.runs.id;
CREATE TABLE public.secondary_indexes (
    id bigint NOT NULL,
    name character varying(512),
    create_timestamp timestamp without time zone DEFAULT CURRENT_TIMESTAMP,
    migration_completed timestamp without time zone
);
CREATE SEQUENCE public.secondary_indexes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.secondary_indexes_id_seq OWNED BY public.secondary_indexes.id;
CREATE TABLE public.snapshots (
    id bigint NOT NULL,
    snapshot_id character varying(255) NOT NULL,
    snapshot_body bytea NOT NULL,
    snapshot_type character varying(63) NOT NULL
);
CREATE SEQUENCE public.snapshots_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.snapshots_id_seq OWNED BY public.snapshots.id;
ALTER TABLE ONLY public.asset_check_executions ALTER COLUMN id SET DEFAULT nextval('public.asset_check_executions_id_seq'::regclass);
ALTER TABLE ONLY public.asset_daemon_asset_evaluations ALTER COLUMN id SET DEFAULT nextval('public.asset_daemon_asset_evaluations_id_seq'::regclass);
ALTER TABLE ONLY public.asset_event_tags ALTER COLUMN id SET DEFAULT nextval('public.asset_event_tags_id_seq'::regclass);
ALTER TABLE ONLY public.asset_keys ALTER COLUMN id SET DEFAULT nextval('public.asset_keys_id_seq'::regclass);
ALTER TABLE ONLY public.bulk_actions ALTER COLUMN id SET DEFAULT nextval('public.bulk_actions_id_seq'::regclass);
ALTER TABLE ONLY public.concurrency_limits ALTER COLUMN id SET DEFAULT nextval('public.concurrency_limits_id_seq'::regclass);
ALTER TABLE ONLY public.concurrency_slots ALTER COLUMN id SET DEFAULT nextval('public.concurrency_slots_id_seq'::regclass);
ALTER TABLE ONLY public.daemon_heartbeats ALTER COLUMN id SET DEFAULT nextval('public.daemon_heartbeats_id_seq'::regclass);
ALTER TABLE ONLY public.dynamic_partitions ALTER COLUMN id SET DEFAULT nextval('public.dynamic_partitions_id_seq'::regclass);
ALTER TABLE ONLY public.event_logs ALTER COLUMN id SET DEFAULT nextval('public.event_logs_id_seq'::regclass);
ALTER TABLE ONLY public.instance_info ALTER COLUMN id SET DEFAULT nextval('public.instance_info_id_seq'::regclass);
ALTER TABLE ONLY public.instigators ALTER COLUMN id SET DEFAULT nextval('public.instigators_id_seq'::regclass);
ALTER TABLE ONLY public.job_ticks ALTER COLUMN id SET DEFAULT nextval('public.job_ticks_id_seq'::regclass);
ALTER TABLE ONLY public.jobs ALTER COLUMN id SET DEFAULT nextval('public.jobs_id_seq'::regclass);
ALTER TABLE ONLY public.kvs ALTER COLUMN id SET DEFAULT nextval('public.kvs_id_seq'::regclass);
ALTER TABLE ONLY public.pending_steps ALTER COLUMN id SET DEFAULT nextval('public.pending_steps_id_seq'::regclass);
ALTER TABLE ONLY public.run_tags ALTER COLUMN id SET DEFAULT nextval('public.run_tags_id_seq'::regclass);
ALTER TABLE ONLY public.runs ALTER COLUMN id SET DEFAULT nextval('public.runs_id_seq'::regclass);
ALTER TABLE ONLY public.secondary_indexes ALTER COLUMN id SET DEFAULT nextval('public.secondary_indexes_id_seq'::regclass);
ALTER TABLE ONLY public.snapshots ALTER COLUMN id SET DEFAULT nextval('public.snapshots_id_seq'::regclass);
INSERT INTO public.alembic_version VALUES ('46b412388816');
INSERT INTO public.asset_keys VALUES (1, '["thing"]', '{"__class__": "EventLogRecord", "event_log_entry": {"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "StepMaterializationData", "asset_lineage": [], "materialization": {"__class__": "AssetMaterialization", "asset_key": {"__class__": "AssetKey", "path": ["thing"]}, "description": null, "metadata_entries": [], "partition": null, "tags": null}}, "event_type_value": "ASSET_MATERIALIZATION", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Materialized value thing.", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.2158818, "user_message": "Materialized value thing."}, "storage_id": 8}', '7ec85fdc-aae5-4535-a52f-69d83d79927e', NULL, NULL, '2026-11-23 00:43:05.215882', NULL, '2026-11-23 00:43:05.270222', NULL);
INSERT INTO public.event_logs VALUES (1, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": null, "event_type_value": "PIPELINE_START", "logging_tags": {}, "message": "Started execution of run for \"quick\".", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": null, "step_key": null, "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": null, "timestamp": 1795394584.8861566, "user_message": "Started execution of run for \"quick\"."}', 'PIPELINE_START', '2026-11-23 00:43:04.886157', NULL, NULL, NULL);
INSERT INTO public.event_logs VALUES (2, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "EngineEventData", "error": null, "marker_end": null, "marker_start": null, "metadata_entries": [{"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "TextMetadataEntryData", "text": "12202"}, "label": "pid"}, {"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "TextMetadataEntryData", "text": "[''one'']"}, "label": "step_keys"}]}, "event_type_value": "ENGINE_EVENT", "logging_tags": {}, "message": "Executing steps in process (pid: 12202)", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": null, "step_key": null, "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": null, "timestamp": 1795394584.9684434, "user_message": "Executing steps in process (pid: 12202)"}', 'ENGINE_EVENT', '2026-11-23 00:43:04.968443', NULL, NULL, NULL);
INSERT INTO public.event_logs VALUES (3, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "EngineEventData", "error": null, "marker_end": null, "marker_start": "resources", "metadata_entries": []}, "event_type_value": "RESOURCE_INIT_STARTED", "logging_tags": {}, "message": "Starting initialization of resources [io_manager].", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394584.986913, "user_message": "Starting initialization of resources [io_manager]."}', 'RESOURCE_INIT_STARTED', '2026-11-23 00:43:04.986913', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (4, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "EngineEventData", "error": null, "marker_end": "resources", "marker_start": null, "metadata_entries": [{"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "PythonArtifactMetadataEntryData", "module": "dagster._core.storage.mem_io_manager", "name": "InMemoryIOManager"}, "label": "io_manager"}, {"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "TextMetadataEntryData", "text": "0.06ms"}, "label": "io_manager:init_time"}]}, "event_type_value": "RESOURCE_INIT_SUCCESS", "logging_tags": {}, "message": "Finished initialization of resources [io_manager].", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394584.9987924, "user_message": "Finished initialization of resources [io_manager]."}', 'RESOURCE_INIT_SUCCESS', '2026-11-23 00:43:04.998792', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (5, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "ComputeLogsCaptureData", "external_stderr_url": null, "external_stdout_url": null, "external_url": null, "log_key": "uyaionwt", "step_keys": ["one"]}, "event_type_value": "LOGS_CAPTURED", "logging_tags": {}, "message": "Started capturing logs in process (pid: 12202).", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": null, "step_key": null, "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": null, "timestamp": 1795394585.0857098, "user_message": "Started capturing logs in process (pid: 12202)."}', 'LOGS_CAPTURED', '2026-11-23 00:43:05.08571', NULL, NULL, NULL);
INSERT INTO public.event_logs VALUES (6, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": null, "event_type_value": "STEP_START", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Started execution of step \"one\".", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.145206, "user_message": "Started execution of step \"one\"."}', 'STEP_START', '2026-11-23 00:43:05.145206', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (7, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": null, "error_info": null, "level": 20, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.198384, "user_message": "hello"}', NULL, '2026-11-23 00:43:05.198384', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (8, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "StepMaterializationData", "asset_lineage": [], "materialization": {"__class__": "AssetMaterialization", "asset_key": {"__class__": "AssetKey", "path": ["thing"]}, "description": null, "metadata_entries": [], "partition": null, "tags": null}}, "event_type_value": "ASSET_MATERIALIZATION", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Materialized value thing.", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.2158818, "user_message": "Materialized value thing."}', 'ASSET_MATERIALIZATION', '2026-11-23 00:43:05.215882', 'one', '["thing"]', NULL);
INSERT INTO public.event_logs VALUES (9, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "StepOutputData", "metadata_entries": [], "step_output_handle": {"__class__": "StepOutputHandle", "mapping_key": null, "output_name": "result", "step_key": "one"}, "type_check_data": {"__class__": "TypeCheckData", "description": null, "label": "result", "metadata_entries": [], "success": true}, "version": null}, "event_type_value": "STEP_OUTPUT", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Yielded output \"result\" of type \"Any\". (Type check passed).", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.2759683, "user_message": "Yielded output \"result\" of type \"Any\". (Type check passed)."}', 'STEP_OUTPUT', '2026-11-23 00:43:05.275968', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (10, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "HandledOutputData", "manager_key": "io_manager", "metadata_entries": [], "output_name": "result"}, "event_type_value": "HANDLED_OUTPUT", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Handled output \"result\" using IO manager \"io_manager\"", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.294631, "user_message": "Handled output \"result\" using IO manager \"io_manager\""}', 'HANDLED_OUTPUT', '2026-11-23 00:43:05.294631', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (11, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "StepSuccessData", "duration_ms": 127.84362499951385}, "event_type_value": "STEP_SUCCESS", "logging_tags": {"job_name": "quick", "op_name": "one", "resource_fn_name": "None", "resource_name": "None", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one"}, "message": "Finished execution of step \"one\" in 127ms.", "pid": 12202, "pipeline_name": "quick", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}, "step_handle": {"__class__": "StepHandle", "key": "one", "solid_handle": {"__class__": "SolidHandle", "name": "one", "parent": null}}, "step_key": "one", "step_kind_value": "COMPUTE"}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": "one", "timestamp": 1795394585.326073, "user_message": "Finished execution of step \"one\" in 127ms."}', 'STEP_SUCCESS', '2026-11-23 00:43:05.326073', 'one', NULL, NULL);
INSERT INTO public.event_logs VALUES (12, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": {"__class__": "EngineEventData", "error": null, "marker_end": null, "marker_start": null, "metadata_entries": [{"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "TextMetadataEntryData", "text": "12202"}, "label": "pid"}, {"__class__": "EventMetadataEntry", "description": null, "entry_data": {"__class__": "TextMetadataEntryData", "text": "[''one'']"}, "label": "step_keys"}]}, "event_type_value": "ENGINE_EVENT", "logging_tags": {}, "message": "Finished steps in process (pid: 12202) in 436ms", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": null, "step_key": null, "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": null, "timestamp": 1795394585.421932, "user_message": "Finished steps in process (pid: 12202) in 436ms"}', 'ENGINE_EVENT', '2026-11-23 00:43:05.421932', NULL, NULL, NULL);
INSERT INTO public.event_logs VALUES (13, '7ec85fdc-aae5-4535-a52f-69d83d79927e', '{"__class__": "EventLogEntry", "dagster_event": {"__class__": "DagsterEvent", "event_specific_data": null, "event_type_value": "PIPELINE_SUCCESS", "logging_tags": {}, "message": "Finished execution of run for \"quick\".", "pid": 12202, "pipeline_name": "quick", "solid_handle": null, "step_handle": null, "step_key": null, "step_kind_value": null}, "error_info": null, "level": 10, "message": "", "pipeline_name": "quick", "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "step_key": null, "timestamp": 1795394585.4383392, "user_message": "Finished execution of run for \"quick\"."}', 'PIPELINE_SUCCESS', '2026-11-23 00:43:05.438339', NULL, NULL, NULL);
INSERT INTO public.instance_info VALUES (1, '51f4d9a4-5f28-40a9-b1e1-381b448c35d3');
INSERT INTO public.run_tags VALUES (1, '7ec85fdc-aae5-4535-a52f-69d83d79927e', 'bonseyes/name', 'old');
INSERT INTO public.runs VALUES (1, '7ec85fdc-aae5-4535-a52f-69d83d79927e', 'eeecffe9a6efdb34eab0d723b5e77da40ea51fe6', 'quick', NULL, 'SUCCESS', '{"__class__": "PipelineRun", "asset_check_selection": null, "asset_selection": {"__frozenset__": []}, "execution_plan_snapshot_id": "e540cf2c02711c21ccdd352bc3063b3d493bbe4b", "external_pipeline_origin": null, "has_repository_load_data": false, "mode": null, "parent_run_id": null, "pipeline_code_origin": null, "pipeline_name": "quick", "pipeline_snapshot_id": "eeecffe9a6efdb34eab0d723b5e77da40ea51fe6", "root_run_id": null, "run_config": {}, "run_id": "7ec85fdc-aae5-4535-a52f-69d83d79927e", "run_op_concurrency": null, "solid_selection": null, "solids_to_execute": null, "status": {"__enum__": "PipelineRunStatus.SUCCESS"}, "step_keys_to_execute": ["one"], "tags": {"bonseyes/name": "old"}}', NULL, NULL, '2026-11-23 00:43:04.878328', '2026-11-23 00:43:05.498284', 1795394584.935394, 1795394585.498284);
INSERT INTO public.secondary_indexes VALUES (1, 'run_partitions', '2026-11-23 00:43:03.983756', '2026-11-23 00:43:03.964863');
INSERT INTO public.secondary_indexes VALUES (2, 'run_repo_label_tags', '2026-11-23 00:43:04.095003', '2026-11-23 00:43:04.064791');
INSERT INTO public.secondary_indexes VALUES (3, 'bulk_action_types', '2026-11-23 00:43:04.141232', '2026-11-23 00:43:04.128577');
INSERT INTO public.secondary_indexes VALUES (4, 'run_start_end_overwritten', '2026-11-23 00:43:04.2065', '2026-11-23 00:43:04.196397');
INSERT INTO public.secondary_indexes VALUES (5, 'asset_key_table', '2026-11-23 00:43:04.44984', '2026-11-23 00:43:04.439391');
INSERT INTO public.secondary_indexes VALUES (6, 'asset_key_index_columns', '2026-11-23 00:43:04.483851', '2026-11-23 00:43:04.474281');
INSERT INTO public.secondary_indexes VALUES (7, 'schedule_jobs_selector_id', '2026-11-23 00:43:04.6809', '2026-11-23 00:43:04.669288');
INSERT INTO public.secondary_indexes VALUES (8, 'schedule_ticks_selector_id', '2026-11-23 00:43:04.762614', '2026-11-23 00:43:04.751602');
INSERT INTO public.snapshots VALUES (1, 'eeecffe9a6efdb34eab0d723b5e77da40ea51fe6', '\x789ced5c5b779b4610fe2b1cbdf42575b9c3f6cdb9b53e75a59cc87de8897d387b192c1a04149053d5c7ffbdbb5c8424035e614951523f240ab03bcc7cf3cdec0cb0b91f791e0d719679dee86765f42148200c22984638c966713e7aa58c681cf9c1ad97d119ccb197d5577e56ee37e7be29c64d8b61ebf371187ab50c71da234bef332c0b01e7d1b24bd0d53229d410221864340d923c88233e205a84213f09d162eedde170015973d20f20646bc7b7c11d445e84e720248bdbf193e5dd574741c42a250a915b3afcc62f9f9d8fff1c3df0b119c5214ebd6a4a758f9c8ff2129ce2b9b0abbeb918fe3a8ec3dded1b8d865957dcad316f752861dff4cdf9e5f9c71613db664d8b11c5bcd793c96531ab1b83f7618c3bd9b27f10cadb352834c70784e1fde5e4fcea091c2ea223a2206ed660501f1d10818bf153f69783ff88b86167829a3f4e21049ac7e919018b599a4b0c04ae8d4d835abe0e40b16f192ed57c9b3a8ea6110b1d315354e72afcf6a0fa4ef07b7f8c2f26e35d12cea755b4efaedacdb6778a90696c64aa8a0d070c577598e150e4db88525b47c8a126b67c136b8e0d16354ec23d43753fb87f56796877dd1e3988c7736322460e4204391ad3744cc151b1ce5c5735a8ebf23fb6616a0e531ddd3a09f70cd3fce0cea912e4ee9a3d72cd344f83e8b6b11154d3d10d8a1842c2d798e89aaedaa661115dd74d87fa3c4c5ddd3e8ddc3658f9833ba8d46cc347d2ca953e3a9170f9d42af4bdb8dc48f5f122ccbd248def020602191f8719ac5d2ac47b38f3fecae2c8cbf2b4b953ab4e41e6a5f0f722480b6979ba10c2ea5a41c818d5b8d7ac98e104ce4c6219c431986f98bae16a4c65aac59711c3d65c835184284136cf51baf0e5e9d99504f47308dfa36585b06dc3440e7bb87922d80f967adf5dbe7b7335692b1c9f6c924ea50e7c09cd97d03c4c6816b5b9746ceebda7d8476c7ee526e025365f62f330b159f665d2c1b9f786721fc1f9959b8c97e07c09cec30467d5f64947e7de1bd67d44a7affb60339f515bc51a321decfa2e3894a70f07ab9a4e4c47b52d42cd97e8fcd639fc3f8b4ef1fe4c3a34a5a3e018a15978447535c3326ddb208899c4f589cf344a5c302cd7b10da4e9c8e27f1bfe49c565e5973e278fae4717e3f793eb51cbeba4ab1928617c7b0be90f9992cf52c86671c8ce468ffc5fb3a926009fe485700761578a1ec85a397b18becd72483b4d125a2ab1af2ce3455ad9276153f13b70c5d98d41b29cbefa78f1e6ca9bfe7afee1dd3378ed836b5806b38965ea98521f33448012463010a4fbb689801084bf395edf5f3734bce6276a9ebfe2ff125e2acfadb8f2d04196ea1e0a8dc3981383ff46591c823c6fca8f19dad3bc3425241926ebcba3324cb310524d6cbb0e716dc4b04a34c0ba46559ba8b6c6b8ba081c62aadf1ec35a38d3ba3c6e53228e3a967dc734c07490aab99645896e5abc1c65cc360cd03587f89498086b1a7624f9208dfc51f9205ddb9c121f0e5b09e27cf6aca5451ad2a33a5a9acddfafa3e51603a9d27837488fea686481ca0966a9be61a82652b16e3b9aa9ea16668c58bea91a444508ec9372f4d00c3f7abd08c2fcc720522e26ca1c47989701bc38c6b992f1ce053205474c4981872faf3c32a5d45ae1c3e7308fd3a544c510c45e25f728ab84b4f78eca290aaa0abc0124d8f4b16a820eb64b6d1ff936cf6bc46486a1136c60f83e38558a5fa4a0cce22f9c4890701ef123f807e822e765e797209f710e61255d4412142ae7055d0f4ee41974c0464d0288b2c8ce149807398f9f2ce34191ed8a4525a41d097091c5780480cd38dd7c8db8ae491ddb374dac63e2a82ef2556a22725824ae4549281a92fb877e50b8c579c0bbd722702017d8f871aac49c2efc87ab06792601091fdf0e8774c57860389a1428834a1133332cda339e8079574fa10c9f609e843087684004ad04b503259d34e572b074b63b6a0e960e8e53cac1072fe044fbdfd1cecbf6df72a49086ff58a4285b92a37d96de7cc6b7d913c99a3bf0e37401d3f897beefd31fc4b5eac991578c112a6709a6d0b3e3e56d3941e837ae876fef7cd9102ab7ff654d6c6facb1204b42bcdcdeddc2e94e44411b444d7696d8f1b276d78d2d2f618c19d7bfdafef39cc7fa73cce507380cfedd965719b46548cb87a037ddbb6a86a2567f38df035bef4e9a6ddcd648da0edd5e3613486359ebde0566c7f69ca168ae3e73ef81b37f4bce73f07cc6d7ffd280aeb4ef42b475a3cf503cab2fd37bd0ecdbdcf31c2c077faa2f8d64a579178ee35894772dabd3502c6b81fd78ae8d92c2743cb9fab55e5dda40ad94914665edfe5dc8742ddb43816956e11e5c9e58aa9f43b5e7ec3b90c6b5d1bf15d6b2028044d4930b9af326a46fe187042206115d4eebd1ebeb3eaf2703e605d15d4cb140be94d452ff4ec5c08bd5b8da6941942c72af50a69e78533a872db93901e5ad54926c54b3e52d7985ec6dbd92282f6cbfa7e0ce2abbb09b872e92dca638996d48e42534fd2ca68b1dc2bc935b07a86679cca098d365f1ef7cc05bf07be959b6f7bd622e8b216b82aa0dc645f959ccea2a6a5f5e446ebf881cacdc760755f440f5c96abe185737debd1efd580d3a844fbfda1b80c7d0eee15173cb43e502f9348ef37aa3fdb047111b0e5c45fb2ab5045120ccc87a126391d0de364337ff1f8179126741cef3c62a596de4b796d31de2bf6386d402ab25600ba2ad3c1e2ff247c3b6ec9f1443d653ee7a43bad917769956ad3a6b96f5befce43c16915f92b21ae5ad92c06ac97dbc0ed58723c2a9034bc87e5ad91bb2d1c3c37fbc3acb5f', 'PIPELINE');
INSERT INTO public.snapshots VALUES (2, 'e540cf2c02711c21ccdd352bc3063b3d493bbe4b', '\x789cad534d6f133110fd2b95cf08b5f423821b4295902ad4488153148d26ebd9c68ad736f66c611be5bf33f63a9b0428278e7e6fe6cdd7f34e0134165302501f2ed4fd4f6a7a36decd2dba85c390369ed59b0b85914d8b0d27081493494c5ae239f62424952c1fc1614702bbde5a818d336cd0c2d6f91f0e12236772775ef1219353d94509925c3d889669a0c3108c7b4a39712f78c0488e27b15a29447a36be4f1089e300c84c5de0292912ea017ccfa11f4169a18dfe855c222e6d2c57394ea60a350c9ef398dea5890c2690358e20d5b580c92b5044d4b42dbdc73b6af5fafa86707da967efaed7b7349b69bcb924bcbd6ae92e4f35a55675c9bf3ad4ddd290803d8ccbccc32d9577a45635a074b27be55c0b09c8e75265ed75cc654e15d91c9995f2cb385d1740aeef46959cfc20c4db4f8f5fe6dfbedeab3c6e478c1a19c1c82e27b5e30effd9ca63093b34a4f1490688c04320a8fd7c7443a6aa61e442a9b7c568217a71181b4a7f7ae5283d3f466573a67cc76643cdb6ea575f8cc4196412145490166da213084276799ea198fb84ae6e3c07237def4d3cfd0772dade6af1ac4c2bc6372f74c828eef2d668d8a0d3f62fff6091d9cf2379b2987ab7d1f6758afd7ef59b5cb5620d2e767ab58e90c732e7eef88f1d0ac258bfed7eb5ff05d2f38041', 'EXECUTION_PLAN');
SELECT pg_catalog.setval('public.asset_check_executions_id_seq', 1, false);
SELECT pg_catalog.setval('public.asset_daemon_asset_evaluations_id_seq', 1, false);
SELECT pg_catalog.setval('public.asset_event_tags_id_seq', 1, false);
SELECT pg_catalog.setval('public.asset_keys_id_seq', 1, true);
SELECT pg_catalog.setval('public.bulk_actions_id_seq', 1, false);
SELECT pg_catalog.setval('public.concurrency_limits_id_seq', 1, false);
SELECT pg_catalog.setval('public.concurrency_slots_id_seq', 1, false);
SELECT pg_catalog.setval('public.daemon_heartbeats_id_seq', 1, false);
SELECT pg_catalog.setval('public.dynamic_partitions_id_seq', 1, false);
SELECT pg_catalog.setval('public.event_logs_id_seq', 13, true);
SELECT pg_catalog.setval('public.instance_info_id_seq', 1, true);
SELECT pg_catalog.setval('public.instigators_id_seq', 1, false);
SELECT pg_catalog.setval('public.job_ticks_id_seq', 1, false);
SELECT pg_catalog.setval('public.jobs_id_seq', 1, false);
SELECT pg_catalog.setval('public.kvs_id_seq', 1, false);
SELECT pg_catalog.setval('public.pending_steps_id_seq', 1, false);
SELECT pg_catalog.setval('public.run_tags_id_seq', 1, true);
SELECT pg_catalog.setval('public.runs_id_seq', 1, true);
SELECT pg_catalog.setval('public.secondary_indexes_id_seq', 8, true);
SELECT pg_catalog.setval('public.snapshots_id_seq', 2, true);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.asset_check_executions
    ADD CONSTRAINT asset_check_executions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.asset_daemon_asset_evaluations
    ADD CONSTRAINT asset_daemon_asset_evaluations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.asset_event_tags
    ADD CONSTRAINT asset_event_tags_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.asset_keys
    ADD CONSTRAINT asset_keys_asset_key_key UNIQUE (asset_key);
ALTER TABLE ONLY public.asset_keys
    ADD CONSTRAINT asset_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.bulk_actions
    ADD CONSTRAINT bulk_actions_key_key UNIQUE (key);
ALTER TABLE ONLY public.bulk_actions
    ADD CONSTRAINT bulk_actions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.concurrency_limits
    ADD CONSTRAINT concurrency_limits_concurrency_key_key UNIQUE (concurrency_key);
ALTER TABLE ONLY public.concurrency_limits
    ADD CONSTRAINT concurrency_limits_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.concurrency_slots
    ADD CONSTRAINT concurrency_slots_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.daemon_heartbeats
    ADD CONSTRAINT daemon_heartbeats_daemon_type_key UNIQUE (daemon_type);
ALTER TABLE ONLY public.daemon_heartbeats
    ADD CONSTRAINT daemon_heartbeats_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.dynamic_partitions
    ADD CONSTRAINT dynamic_partitions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.event_logs
    ADD CONSTRAINT event_logs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instance_info
    ADD CONSTRAINT instance_info_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instigators
    ADD CONSTRAINT instigators_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.instigators
    ADD CONSTRAINT instigators_selector_id_key UNIQUE (selector_id);
ALTER TABLE ONLY public.job_ticks
    ADD CONSTRAINT job_ticks_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_job_origin_id_key UNIQUE (job_origin_id);
ALTER TABLE ONLY public.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.kvs
    ADD CONSTRAINT kvs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.pending_steps
    ADD CONSTRAINT pending_steps_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.run_tags
    ADD CONSTRAINT run_tags_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_run_id_key UNIQUE (run_id);
ALTER TABLE ONLY public.secondary_indexes
    ADD CONSTRAINT secondary_indexes_name_key UNIQUE (name);
ALTER TABLE ONLY public.secondary_indexes
    ADD CONSTRAINT secondary_indexes_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.snapshots
    ADD CONSTRAINT snapshots_snapshot_id_key UNIQUE (snapshot_id);
CREATE INDEX idx_asset_check_executions ON public.asset_check_executions USING btree (asset_key, check_name, materialization_event_storage_id, partition);
CREATE UNIQUE INDEX idx_asset_check_executions_unique ON public.asset_check_executions USING btree (asset_key, check_name, run_id, partition);
CREATE UNIQUE INDEX idx_asset_daemon_asset_evaluations_asset_key_evaluation_id ON public.asset_daemon_asset_evaluations USING btree (asset_key, evaluation_id);
CREATE INDEX idx_asset_event_tags ON public.asset_event_tags USING btree (asset_key, key, value);
CREATE INDEX idx_asset_event_tags_event_id ON public.asset_event_tags USING btree (event_id);
CREATE INDEX idx_bulk_actions ON public.bulk_actions USING btree (key);
CREATE INDEX idx_bulk_actions_action_type ON public.bulk_actions USING btree (action_type);
CREATE INDEX idx_bulk_actions_selector_id ON public.bulk_actions USING btree (selector_id);
CREATE INDEX idx_bulk_actions_status ON public.bulk_actions USING btree (status);
CREATE UNIQUE INDEX idx_dynamic_partitions ON public.dynamic_partitions USING btree (partitions_def_name, partition);
CREATE INDEX idx_event_type ON public.event_logs USING btree (dagster_event_type, id);
CREATE INDEX idx_events_by_asset ON public.event_logs USING btree (asset_key, dagster_event_type, id) WHERE (asset_key IS NOT NULL);
CREATE INDEX idx_events_by_asset_partition ON public.event_logs USING btree (asset_key, dagster_event_type, partition, id) WHERE ((asset_key IS NOT NULL) AND (partition IS NOT NULL));
CREATE INDEX idx_events_by_run_id ON public.event_logs USING btree (run_id, id);
CREATE INDEX idx_job_tick_status ON public.job_ticks USING btree (job_origin_id, status);
CREATE INDEX idx_job_tick_timestamp ON public.job_ticks USING btree (job_origin_id, "timestamp");
CREATE UNIQUE INDEX idx_kvs_keys_unique ON public.kvs USING btree (key);
CREATE UNIQUE INDEX idx_pending_steps ON public.pending_steps USING btree (concurrency_key, run_id, step_key);
CREATE INDEX idx_run_partitions ON public.runs USING btree (partition_set, partition);
CREATE INDEX idx_run_range ON public.runs USING btree (status, update_timestamp, create_timestamp);
CREATE INDEX idx_run_status ON public.runs USING btree (status);
CREATE INDEX idx_run_tags ON public.run_tags USING btree (key, value);
CREATE INDEX idx_runs_by_job ON public.runs USING btree (pipeline_name, id);
CREATE INDEX idx_step_key ON public.event_logs USING btree (step_key);
CREATE INDEX idx_tick_selector_timestamp ON public.job_ticks USING btree (selector_id, "timestamp");
CREATE INDEX ix_asset_daemon_asset_evaluations_evaluation_id ON public.asset_daemon_asset_evaluations USING btree (evaluation_id);
CREATE INDEX ix_instigators_instigator_type ON public.instigators USING btree (instigator_type);
CREATE INDEX ix_job_ticks_job_origin_id ON public.job_ticks USING btree (job_origin_id);
CREATE INDEX ix_jobs_job_type ON public.jobs USING btree (job_type);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT fk_runs_snapshot_id_snapshots_snapshot_id FOREIGN KEY (snapshot_id) REFERENCES public.snapshots(snapshot_id);
ALTER TABLE ONLY public.run_tags
    ADD CONSTRAINT run_tags_run_id_fkey FOREIGN KEY (run_id) REFERENCES public.runs(run_id) ON DELETE CASCADE;
