//! `events`: statistics and out-of-memory kills, one JSON object a line.

mod stats;

use crate::args::{Arity, Command, Flag, UsageError};
use crate::context::Context;
use crate::failure::Failure;
use crate::{output, units};
use carrack_cgroup::{Group, OomEvent};
use carrack_spec::runtime::Status;
use serde::Serialize;
use stats::Stats;
use std::time::{Duration, Instant};

static INTERVAL: Flag = Flag::text(
    "interval",
    "DURATION",
    "time between statistics, as in 5s (the default), 500ms or 1m30s",
);
static STATS: Flag = Flag::switch("stats", "print the statistics once and end");

/// The command.
pub static COMMAND: Command = Command {
    name: "events",
    summary: "print statistics and out-of-memory events",
    arguments: "CONTAINER",
    description:
        "   Prints one JSON object a line, of type stats at every interval and of type oom when the
   kernel killed a process because the container ran out of memory. Ends with the container.",
    flags: &[&INTERVAL, &STATS],
    arity: Arity::Exactly(1),
    hidden: false,
    run,
};

/// What is used when no interval is given, in nanoseconds.
const INTERVAL_NS: i64 = 5_000_000_000;

/// One line.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

fn run(context: &Context) -> Result<u8, Failure> {
    let interval = interval(context)?;
    let container = context.container()?;
    let id = container.id().as_str();
    if container.status()? == Status::Stopped {
        return Err(Failure::State(format!(
            "container with id {id} is not running"
        )));
    }
    let group = container.cgroup()?;
    if context.matches.on(&STATS) {
        print_stats(id, &group)?;
        return Ok(0);
    }
    let mut watch = group.watch_oom()?;
    let mut due = Instant::now() + interval;
    loop {
        match watch.wait(Some(due.saturating_duration_since(Instant::now())))? {
            Some(OomEvent::Killed(count)) => {
                for _ in 0..count {
                    print(&Event {
                        kind: "oom",
                        id,
                        data: None,
                    })?;
                }
            }
            Some(OomEvent::Ended) => return Ok(0),
            None => {
                // On v1 the watch ends when the cgroups go, not when the processes do.
                if !group.exists() {
                    return Ok(0);
                }
                print_stats(id, &group)?;
                due += interval;
            }
        }
    }
}

fn interval(context: &Context) -> Result<Duration, Failure> {
    let ns = match context.matches.utf8(&INTERVAL)? {
        None => INTERVAL_NS,
        Some(text) => units::duration_ns(text).ok_or_else(|| UsageError::BadValue {
            flag: INTERVAL.name,
            value: text.to_owned(),
            expected: "a duration such as 5s or 500ms",
        })?,
    };
    match u64::try_from(ns) {
        Ok(ns) if ns > 0 => Ok(Duration::from_nanos(ns)),
        _ => Err(Failure::Value {
            what: "--interval",
            reason: "duration interval must be greater than 0".into(),
        }),
    }
}

fn print_stats(id: &str, group: &Group) -> Result<(), Failure> {
    print(&Event {
        kind: "stats",
        id,
        data: Some(group.stats()?.into()),
    })
}

fn print(event: &Event<'_>) -> Result<(), Failure> {
    output::print(&output::json_line(event)?)
}
