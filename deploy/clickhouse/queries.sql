-- Ten questions about the forks of a fleet. Each takes the parameters `from` and `to`, two moments in UTC.
-- Times in the answers are of `held_ns`: how long a fork kept its caller, if not said otherwise.

-- callers: who forks most, and what does it cost?
SELECT
    comm,
    count() AS forks,
    countIf(failed) AS failures,
    uniq(host) AS hosts,
    sum(held_ns) / 1e9 AS held_s,
    quantile(0.5)(held_ns) / 1e6 AS p50_ms,
    quantile(0.99)(held_ns) / 1e6 AS p99_ms
FROM fork_trace.forks
WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
GROUP BY comm
ORDER BY forks DESC, comm
LIMIT 20;

-- slowest: which forks held their callers longest, and why?
SELECT
    host, ts, comm, pid, kind, held_ns / 1e6 AS held_ms, slow, slow_text,
    rss_pages * 4096 / 1048576 AS rss_mib, cgroup
FROM fork_trace.forks
WHERE ts >= {from:DateTime} AND ts < {to:DateTime} AND held_ns IS NOT NULL
ORDER BY held_ns DESC, ts
LIMIT 20;

-- failures: why are forks refused, where, and whose?
SELECT
    cause, errno, count() AS failures, uniq(host) AS hosts,
    topK(3)(comm) AS comms, topK(3)(unit) AS units,
    min(ts) AS first, max(ts) AS last
FROM fork_trace.forks
WHERE ts >= {from:DateTime} AND ts < {to:DateTime} AND failed
GROUP BY cause, errno
ORDER BY failures DESC, cause, errno;

-- minutes: how slow is a fork of each kind, minute by minute?
SELECT
    toStartOfMinute(ts) AS minute, kind, count() AS forks,
    quantile(0.5)(held_ns) / 1e6 AS p50_ms, quantile(0.99)(held_ns) / 1e6 AS p99_ms, max(held_ns) / 1e6 AS max_ms
FROM fork_trace.forks
WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
GROUP BY minute, kind
ORDER BY minute, kind;

-- waits: what do forks stand still for, and who keeps it from them?
SELECT
    reason, count() AS waits, uniq(host) AS hosts, sum(dur_ns) / 1e9 AS waited_s,
    quantile(0.99)(dur_ns) / 1e6 AS p99_ms, topKIf(3)(by, by != '') AS kept_by, topKIf(3)(stage, stage != '') AS stages
FROM fork_trace.forks
ARRAY JOIN waits.reason AS reason, waits.stage AS stage, waits.by AS by, waits.dur_ns AS dur_ns
WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
GROUP BY reason
ORDER BY waited_s DESC, reason;

-- places: which container, unit or group forks, fails and waits?
SELECT
    multiIf(container != '', 'container', unit != '', 'unit', cgroup != '', 'cgroup', '') AS what,
    multiIf(container != '', container, unit != '', unit, cgroup) AS place,
    any(pod) AS pod,
    count() AS forks, countIf(failed) AS failures, uniq(host) AS hosts,
    sum(held_ns) / 1e9 AS held_s, quantile(0.99)(held_ns) / 1e6 AS p99_ms
FROM fork_trace.forks
WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
GROUP BY what, place
ORDER BY forks DESC, place
LIMIT 20;

-- hosts: which hosts differ from the others?
SELECT
    host, forks, failures, p99_ms,
    median(p99_ms) OVER () AS fleet_p99_ms, p99_ms / fleet_p99_ms AS times
FROM
(
    SELECT host, count() AS forks, countIf(failed) AS failures, quantile(0.99)(held_ns) / 1e6 AS p99_ms
    FROM fork_trace.forks
    WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
    GROUP BY host
)
ORDER BY times DESC, host
LIMIT 20;

-- storms: who made how many forks within one second, at most?
SELECT
    host, comm, max(forks) AS most_in_a_second, argMax(second, forks) AS at, countIf(forks > 1000) AS storms
FROM
(
    SELECT host, comm, toStartOfSecond(ts) AS second, count() AS forks
    FROM fork_trace.forks
    WHERE ts >= {from:DateTime} AND ts < {to:DateTime}
    GROUP BY host, comm, second
)
GROUP BY host, comm
ORDER BY most_in_a_second DESC, host, comm
LIMIT 20;

-- limits: which limits were full, who filled them, and how many forks did the same name make in the minute before?
SELECT
    r.host AS host, r.limit_name AS limit_name, r.limit_path AS limit_path, r.limit_max AS limit_max, r.comm AS comm,
    refusals, first, filled_by,
    countIf(made.errno = '' AND made.ts >= first - INTERVAL 1 MINUTE AND made.ts < first) AS made_before
FROM fork_trace.forks AS made
INNER JOIN
(
    SELECT
        host, limit_name, limit_path, comm, max(limit_max) AS limit_max, count() AS refusals, min(ts) AS first,
        argMin(arrayZip(holders.comm, holders.state, holders.count), ts) AS filled_by
    FROM fork_trace.forks
    WHERE ts >= {from:DateTime} AND ts < {to:DateTime} AND failed AND limit_name != ''
    GROUP BY host, limit_name, limit_path, comm
    ORDER BY refusals DESC, host, limit_name, limit_path, comm
    LIMIT 20
) AS r
ON made.host = r.host AND made.comm = r.comm
WHERE made.ts >= {from:DateTime} - INTERVAL 1 MINUTE AND made.ts < {to:DateTime}
GROUP BY r.host, r.limit_name, r.limit_path, r.limit_max, r.comm, refusals, first, filled_by
ORDER BY refusals DESC, host, limit_name, limit_path, comm;

-- vforks: who is held by children of vfork for 10 ms or more, and what lets go? A vfork that lasted for more than a
-- day is not found.
SELECT
    f.comm AS comm, d.released_by AS released_by, count() AS vforks, uniq(f.host) AS hosts,
    sum(d.wait_ns) / 1e9 AS waited_s, max(d.wait_ns) / 1e6 AS max_ms
FROM fork_trace.forks AS f
INNER JOIN
(
    SELECT host, boot_id, released_by, wait_ns,
        toUInt32OrZero(splitByChar('-', fork_id)[1]) AS tid, toUInt64OrZero(splitByChar('-', fork_id)[2]) AS mono_ns
    FROM fork_trace.follow_ups
    WHERE ts >= {from:DateTime} AND ts < {to:DateTime} AND type = 'vfork_done' AND wait_ns >= 10000000
) AS d
ON f.host = d.host AND f.boot_id = d.boot_id AND f.tid = d.tid AND f.mono_ns = d.mono_ns
WHERE f.kind = 'vfork' AND f.ts >= {from:DateTime} - INTERVAL 1 DAY AND f.ts < {to:DateTime}
GROUP BY comm, released_by
ORDER BY waited_s DESC, comm, released_by
LIMIT 20;
