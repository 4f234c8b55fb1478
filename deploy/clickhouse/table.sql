-- Tables for recordings of fork-trace (docs/JSON.md, schema version 2) of many hosts: docs/FLEET.md.
--
-- A value that is not known is NULL; a word that is not known, or does not apply, is ''.

CREATE DATABASE IF NOT EXISTS fork_trace;

-- One row for each attempt to make a task.
CREATE TABLE IF NOT EXISTS fork_trace.forks
(
    host LowCardinality(String),
    boot_id UUID CODEC(ZSTD(1)),
    ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    mono_ns UInt64 CODEC(Delta, ZSTD(1)),
    -- By this exec, exit and vfork_done lines name it.
    id String ALIAS concat(toString(tid), '-', toString(mono_ns)),
    kind LowCardinality(String),
    syscall LowCardinality(String),

    -- The caller.
    pid UInt32 CODEC(T64, ZSTD(1)),
    tid UInt32 CODEC(T64, ZSTD(1)),
    ppid UInt32 CODEC(T64, ZSTD(1)),
    comm LowCardinality(String),
    exe LowCardinality(String),
    uid UInt32 CODEC(T64, ZSTD(1)),
    user LowCardinality(String),
    threads Nullable(UInt32) CODEC(ZSTD(1)),
    cgroup LowCardinality(String),
    unit LowCardinality(String),
    container LowCardinality(String),
    runtime LowCardinality(String),
    -- The uid of a Kubernetes pod, as the path of its group has it: systemd's units have _ in place of -.
    pod String ALIAS replaceAll(
        extract(cgroup, 'pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:[./]|$)'), '_', '-'),
    -- The names of its ancestors, its parent first.
    ancestors Array(LowCardinality(String)) CODEC(ZSTD(1)),

    child_pid Nullable(UInt32) CODEC(ZSTD(1)),

    -- Why it failed. An attempt that fell back is no failure: another one was made instead.
    errno LowCardinality(String),
    failed_stage LowCardinality(String),
    cause LowCardinality(String),
    confidence LowCardinality(String),
    fell_back Bool,
    failed Bool ALIAS errno != '' AND NOT fell_back,
    limit_name LowCardinality(String),
    limit_path LowCardinality(String),
    limit_current Nullable(UInt64) CODEC(ZSTD(1)),
    limit_max Nullable(UInt64) CODEC(ZSTD(1)),
    -- Who fills that limit.
    holders Nested(comm LowCardinality(String), state LowCardinality(String), count UInt64),

    -- What it cost.
    total_ns Nullable(UInt64) CODEC(T64, ZSTD(1)),
    held_ns Nullable(UInt64) CODEC(T64, ZSTD(1)),
    off_cpu_ns Nullable(UInt64) CODEC(ZSTD(1)),
    queued_ns Nullable(UInt64) CODEC(T64, ZSTD(1)),
    rss_pages Nullable(UInt64) CODEC(T64, ZSTD(1)),
    copied_page_table_bytes Nullable(UInt64) CODEC(T64, ZSTD(1)),
    slow LowCardinality(String),
    slow_share Nullable(Float32) CODEC(ZSTD(1)),
    slow_text String CODEC(ZSTD(1)),
    waits Nested(reason LowCardinality(String), stage LowCardinality(String), by LowCardinality(String), dur_ns UInt64),
    -- The time of the waits that are not among them.
    waits_more_ns Nullable(UInt64) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(ts)
-- An hour of a host lies together, and in it the attempts of one name, whose columns look alike.
ORDER BY (host, toStartOfHour(ts), comm, kind, ts)
TTL toDateTime(ts) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

-- What became of children and of callers of vfork: exec, exit and vfork_done lines.
CREATE TABLE IF NOT EXISTS fork_trace.follow_ups
(
    host LowCardinality(String),
    boot_id UUID CODEC(ZSTD(1)),
    ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    type LowCardinality(String),
    fork_id String CODEC(ZSTD(1)),
    pid UInt32 CODEC(T64, ZSTD(1)),
    -- exec
    exe String CODEC(ZSTD(1)),
    errno LowCardinality(String),
    -- exit
    lifetime_ns Nullable(UInt64) CODEC(ZSTD(1)),
    code Nullable(Int32) CODEC(ZSTD(1)),
    signal Nullable(Int32) CODEC(ZSTD(1)),
    cpu_ns Nullable(UInt64) CODEC(ZSTD(1)),
    max_rss_bytes Nullable(UInt64) CODEC(ZSTD(1)),
    -- vfork_done
    held_ns Nullable(UInt64) CODEC(ZSTD(1)),
    wait_ns Nullable(UInt64) CODEC(ZSTD(1)),
    released_by LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY toDate(ts)
ORDER BY (host, type, ts)
TTL toDateTime(ts) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

-- One row for each recording that was taken in: how much of it is true, and that it is not taken in twice.
CREATE TABLE IF NOT EXISTS fork_trace.recordings
(
    host LowCardinality(String),
    boot_id UUID,
    ts DateTime64(9, 'UTC'),
    mono_ns UInt64,
    version LowCardinality(String),
    kernel LowCardinality(String),
    cpus UInt32,
    -- NULL where the recording was cut off.
    attempts Nullable(UInt64),
    failed Nullable(UInt64),
    lost Nullable(UInt64),
    traced_ns Nullable(UInt64)
)
ENGINE = MergeTree
ORDER BY (host, ts);
