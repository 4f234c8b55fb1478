//! How long the queries take on many rows. They are made of what was recorded: its attempts again and again, of other
//! hosts, at other moments and with durations that differ by up to a quarter.

use anyhow::{Context as _, Result};

use crate::deploy::{clickhouse::engine::Engine, json::at};

/// Hosts of the fleet.
const HOSTS: u32 = 100;

/// Days that its recordings are of.
const DAYS: u32 = 7;

/// Rows that one statement makes.
const PORTION: u64 = 5_000_000;

/// Makes the rows and prints the times.
pub(super) fn times(engine: &mut Engine, rows: u64, queries: &[(String, String)]) -> Result<()> {
    let recorded = number(engine, "SELECT count() AS n FROM fork_trace.forks")?;
    engine.ask("RENAME TABLE fork_trace.forks TO fork_trace.recorded, fork_trace.follow_ups TO fork_trace.followed")?;
    engine.ask("CREATE TABLE fork_trace.forks AS fork_trace.recorded")?;
    engine.ask("CREATE TABLE fork_trace.follow_ups AS fork_trace.followed")?;
    // Days are filled one after the other, as they are in life.
    let copies = rows / recorded;
    let portion = (PORTION / recorded).max(1);
    let seconds = u64::from(DAYS) * 86_400;
    let shifted = format!(
        "concat('host-', toString(n % {HOSTS})) AS host, \
         toDateTime64(today() - {DAYS}, 9, 'UTC') + toIntervalSecond(intDiv(n * {seconds}, {copies})) \
             + toIntervalNanosecond(toUnixTimestamp64Nano(ts) % 60000000000) AS ts"
    );
    let near = |column: &str| {
        format!(
            "toUInt64({column} * (0.75 + (cityHash64(n, mono_ns, '{column}') % 10000) / 20000)) AS {column}"
        )
    };
    let mut took = 0.0;
    for first in (0..copies).step_by(usize::try_from(portion).unwrap_or(usize::MAX)) {
        let count = portion.min(copies - first);
        took += engine
            .ask(&format!(
                "INSERT INTO fork_trace.forks SELECT recorded.* REPLACE({shifted}, mono_ns + n * 1000000 AS mono_ns, \
                     (pid + n) % 4194304 AS pid, (tid + n) % 4194304 AS tid, {}, {}, {}) \
                 FROM fork_trace.recorded CROSS JOIN (SELECT number AS n FROM numbers({first}, {count})) AS copies",
                near("total_ns"), near("held_ns"), near("queued_ns"),
            ))?
            .seconds;
        engine.ask(&format!(
            "INSERT INTO fork_trace.follow_ups SELECT followed.* REPLACE({shifted}, \
                 concat(toString((toUInt32(splitByChar('-', fork_id)[1]) + n) % 4194304), '-', \
                     toString(toUInt64(splitByChar('-', fork_id)[2]) + n * 1000000)) AS fork_id) \
             FROM fork_trace.followed CROSS JOIN (SELECT number AS n FROM numbers({first}, {count})) AS copies \
             WHERE fork_id != '' AND (type = 'vfork_done')"
        ))?;
        println!("{} of {rows} rows", (first + count) * recorded);
    }
    let rows = number(engine, "SELECT count() AS n FROM fork_trace.forks")?;
    let size = |column: &str| {
        format!(
            "SELECT sum({column}) AS n FROM system.parts WHERE active AND table = 'forks' AND database = 'fork_trace'"
        )
    };
    let (on_disk, whole) = (
        number(engine, &size("bytes_on_disk"))?,
        number(engine, &size("data_uncompressed_bytes"))?,
    );
    println!(
        "{rows} rows made in {took:.0} s; {} MB on disk, {} MB without compression",
        on_disk / 1_000_000,
        whole / 1_000_000
    );
    let day = number(engine, "SELECT toUInt32(today() - 4) AS n")?;
    let window = |from: u64, to: u64| {
        move |engine: &mut Engine| -> Result<()> {
            for (name, day) in [("from", from), ("to", to)] {
                let text = engine
                    .one(&format!("SELECT toString(toDateTime(toDate({day}), 'UTC')) AS day"))?;
                engine.set(name, at(&text, "/day").as_str().unwrap_or_default())?;
            }
            Ok(())
        }
    };
    println!("{:10} {:>10} {:>10}", "query", "a day", "all days");
    for (name, query) in queries {
        window(day, day + 1)(engine)?;
        let of_a_day = engine.ask(query).with_context(|| name.clone())?.seconds;
        window(day - 10, day + 10)(engine)?;
        let of_all = engine.ask(query).with_context(|| name.clone())?.seconds;
        println!("{name:10} {of_a_day:>8.2} s {of_all:>8.2} s");
    }
    Ok(())
}

fn number(engine: &mut Engine, query: &str) -> Result<u64> {
    let row = engine.one(query)?;
    at(&row, "/n").as_u64().with_context(|| format!("find a number in {row}"))
}
