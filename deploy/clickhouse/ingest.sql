-- Takes one recording in: the parameter `file` is its path, compressed or not.
--
-- The first line says which host it is of. Lines of other types are left out, and a recording that is there already
-- is not taken in again; should this be stopped in the middle, delete what is there of it first.

SET date_time_input_format = 'best_effort';
SET input_format_skip_unknown_fields = 1;
SET input_format_json_ignore_unknown_keys_in_named_tuple = 1;
SET input_format_json_defaults_for_missing_elements_in_named_tuple = 1;

SELECT throwIf(count() != 1, 'The file is not one recording of schema version 2: it has no such start line, or several')
FROM file({file:String}, 'JSONEachRow', 'type String, schema_version UInt32')
WHERE type = 'start' AND schema_version = 2;

INSERT INTO fork_trace.forks
WITH
    (
        SELECT (host.name, host.boot_id, mono_ns)
        FROM file({file:String}, 'JSONEachRow', 'type String, host Tuple(name String, boot_id UUID), mono_ns UInt64')
        WHERE type = 'start' LIMIT 1
    ) AS start
SELECT
    start.1 AS host,
    start.2 AS boot_id,
    ts,
    mono_ns,
    kind,
    syscall,
    parent.pid AS pid,
    parent.tid AS tid,
    parent.ppid AS ppid,
    parent.comm AS comm,
    parent.exe AS exe,
    parent.uid AS uid,
    parent.user AS user,
    parent.threads AS threads,
    parent.cgroup AS cgroup,
    parent.unit AS unit,
    parent.container.id AS container,
    parent.container.runtime AS runtime,
    ancestors.comm AS ancestors,
    child.pid AS child_pid,
    if(errno IS NULL OR errno_name != '', errno_name, concat('errno ', toString(errno))) AS errno,
    failed_stage,
    cause.kind AS cause,
    cause.confidence AS confidence,
    fell_back_to != '' AS fell_back,
    cause.limit AS limit_name,
    cause.path AS limit_path,
    cause.current AS limit_current,
    cause.max AS limit_max,
    cause.holders.comm AS `holders.comm`,
    cause.holders.state AS `holders.state`,
    cause.holders.count AS `holders.count`,
    total_ns,
    held_ns,
    off_cpu_ns,
    child_start.queued_ns AS queued_ns,
    memory.rss_pages AS rss_pages,
    memory.copied_page_table_bytes AS copied_page_table_bytes,
    slow.kind AS slow,
    slow.share AS slow_share,
    slow.text AS slow_text,
    waits.reason AS `waits.reason`,
    waits.stage AS `waits.stage`,
    waits.by.comm AS `waits.by`,
    waits.dur_ns AS `waits.dur_ns`,
    waits_more.dur_ns AS waits_more_ns
FROM file({file:String}, 'JSONEachRow', '
    type String, ts DateTime64(9, ''UTC''), mono_ns UInt64, kind String, syscall String,
    parent Tuple(pid UInt32, tid UInt32, ppid UInt32, comm String, exe String, uid UInt32, user String,
        threads Nullable(UInt32), cgroup String, unit String, container Tuple(id String, runtime String)),
    ancestors Array(Tuple(comm String)), child Tuple(pid Nullable(UInt32)),
    errno Nullable(Int32), errno_name String, failed_stage String, fell_back_to String,
    cause Tuple(kind String, confidence String, limit String, path String, current Nullable(UInt64),
        max Nullable(UInt64), holders Array(Tuple(comm String, state String, count UInt64))),
    total_ns Nullable(UInt64), held_ns Nullable(UInt64), off_cpu_ns Nullable(UInt64),
    child_start Tuple(queued_ns Nullable(UInt64)),
    memory Tuple(rss_pages Nullable(UInt64), copied_page_table_bytes Nullable(UInt64)),
    slow Tuple(kind String, share Nullable(Float32), text String),
    waits Array(Tuple(reason String, stage String, by Tuple(comm String), dur_ns UInt64)),
    waits_more Tuple(dur_ns Nullable(UInt64))')
WHERE type = 'fork'
    AND (start.1, start.2, start.3) NOT IN (SELECT host, boot_id, mono_ns FROM fork_trace.recordings);

INSERT INTO fork_trace.follow_ups
WITH
    (
        SELECT (host.name, host.boot_id, mono_ns)
        FROM file({file:String}, 'JSONEachRow', 'type String, host Tuple(name String, boot_id UUID), mono_ns UInt64')
        WHERE type = 'start' LIMIT 1
    ) AS start
SELECT
    start.1 AS host,
    start.2 AS boot_id,
    ts,
    type,
    fork_id,
    pid,
    exe,
    if(errno IS NULL OR errno_name != '', errno_name, concat('errno ', toString(errno))) AS errno,
    lifetime_ns,
    toInt32OrNull(code) AS code,
    signal,
    cpu_ns,
    max_rss_bytes,
    held_ns,
    wait_ns,
    released_by
-- In a warning `code` is a word.
FROM file({file:String}, 'JSONEachRow', '
    type String, ts DateTime64(9, ''UTC''), fork_id String, pid UInt32, exe String, errno Nullable(Int32),
    errno_name String, lifetime_ns Nullable(UInt64), code String, signal Nullable(Int32),
    cpu_ns Nullable(UInt64), max_rss_bytes Nullable(UInt64), held_ns Nullable(UInt64), wait_ns Nullable(UInt64),
    released_by String')
WHERE type IN ('exec', 'exit', 'vfork_done')
    AND (start.1, start.2, start.3) NOT IN (SELECT host, boot_id, mono_ns FROM fork_trace.recordings);

INSERT INTO fork_trace.recordings
SELECT
    anyIf(host.name, type = 'start') AS name,
    anyIf(host.boot_id, type = 'start') AS boot,
    anyIf(ts, type = 'start') AS began,
    anyIf(mono_ns, type = 'start') AS began_ns,
    anyIf(version, type = 'start'),
    anyIf(host.kernel, type = 'start'),
    anyIf(host.cpus, type = 'start'),
    anyIf(attempts, type = 'summary'),
    anyIf(failed, type = 'summary'),
    anyIf(lost, type = 'summary'),
    anyIf(traced_ns, type = 'summary')
FROM file({file:String}, 'JSONEachRow', '
    type String, ts DateTime64(9, ''UTC''), mono_ns UInt64, version String,
    host Tuple(name String, boot_id UUID, kernel String, cpus UInt32), attempts Nullable(UInt64),
    failed Nullable(UInt64), lost Nullable(UInt64), traced_ns Nullable(UInt64)')
WHERE type IN ('start', 'summary')
HAVING (name, boot, began_ns) NOT IN (SELECT host, boot_id, mono_ns FROM fork_trace.recordings);
