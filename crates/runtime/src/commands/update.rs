//! `update`: changes the limits of a container that runs.

use crate::args::{Arity, Command, Flag, Matches};
use crate::context::Context;
use crate::failure::Failure;
use carrack_spec::runtime::{
    BlockIo, CONFIG_BYTES_MAX, Cpu, IntelRdt, Memory, Pids, Resources, parse_json,
};
use std::ffi::OsStr;
use std::io::Read;

static RESOURCES: Flag = Flag::text(
    "resources",
    "FILE",
    "read the limits from a JSON file in the form of linux.resources (- is standard input), and \
     ignore every other flag but those of Intel RDT; what the file leaves out stays as it is",
)
.short('r');
static BLKIO_WEIGHT: Flag = Flag::integer("blkio-weight", "N", "share of block I/O, 10 to 1000");
static CPU_PERIOD: Flag = Flag::text(
    "cpu-period",
    "USECS",
    "length of a period of --cpu-quota in microseconds; 0 is the kernel's default",
);
static CPU_QUOTA: Flag = Flag::text(
    "cpu-quota",
    "USECS",
    "processor time in each period in microseconds",
);
static CPU_BURST: Flag = Flag::text(
    "cpu-burst",
    "USECS",
    "unused processor time that may be spent above the quota, in microseconds",
);
static CPU_SHARE: Flag = Flag::text(
    "cpu-share",
    "N",
    "weight against other containers, 2 to 262144",
);
static CPU_RT_PERIOD: Flag = Flag::text(
    "cpu-rt-period",
    "USECS",
    "length of a period of --cpu-rt-runtime in microseconds (cgroup v1)",
);
static CPU_RT_RUNTIME: Flag = Flag::text(
    "cpu-rt-runtime",
    "USECS",
    "real-time processor time in each period in microseconds (cgroup v1)",
);
static CPUSET_CPUS: Flag = Flag::text("cpuset-cpus", "LIST", "processors to run on, as in 0-3,7");
static CPUSET_MEMS: Flag = Flag::text("cpuset-mems", "LIST", "memory nodes to use, as in 0-1");
static CPU_IDLE: Flag = Flag::text(
    "cpu-idle",
    "0|1",
    "1 runs the container only when nothing else wants the processor",
);
static KERNEL_MEMORY: Flag = Flag::text(
    "kernel-memory",
    "BYTES",
    "ignored: the kernel has no such limit",
)
.hidden();
static KERNEL_MEMORY_TCP: Flag =
    Flag::text("kernel-memory-tcp", "BYTES", "ignored, as runc does").hidden();
static MEMORY: Flag = Flag::text(
    "memory",
    "BYTES",
    "memory limit, as in 512m or 1.5g; -1 is none",
);
static MEMORY_RESERVATION: Flag = Flag::text(
    "memory-reservation",
    "BYTES",
    "soft memory limit; -1 is none",
);
static MEMORY_SWAP: Flag = Flag::text(
    "memory-swap",
    "BYTES",
    "limit of memory and swap together; -1 is none",
);
static PIDS_LIMIT: Flag = Flag::integer("pids-limit", "N", "most tasks at once; -1 is no limit");
static L3_CACHE_SCHEMA: Flag = Flag::text(
    "l3-cache-schema",
    "SCHEMA",
    "cache line of the Intel RDT schemata",
);
static MEM_BW_SCHEMA: Flag = Flag::text(
    "mem-bw-schema",
    "SCHEMA",
    "memory bandwidth line of the Intel RDT schemata",
);

/// The command.
pub static COMMAND: Command = Command {
    name: "update",
    summary: "change the limits of a container",
    arguments: "CONTAINER",
    description: "   Changes what the flags name and leaves every other limit as it is. The file of --resources
   looks like this, every part of it optional:

      {
        \"memory\": { \"limit\": 536870912, \"reservation\": 0, \"swap\": 0,
                    \"checkBeforeUpdate\": true },
        \"cpu\": { \"shares\": 512, \"quota\": 50000, \"period\": 100000, \"burst\": 0,
                 \"realtimeRuntime\": 0, \"realtimePeriod\": 0, \"cpus\": \"0-1\", \"mems\": \"0\",
                 \"idle\": 0 },
        \"blockIO\": { \"weight\": 100 },
        \"pids\": { \"limit\": 64 }
      }",
    flags: &[
        &RESOURCES,
        &BLKIO_WEIGHT,
        &CPU_PERIOD,
        &CPU_QUOTA,
        &CPU_BURST,
        &CPU_SHARE,
        &CPU_RT_PERIOD,
        &CPU_RT_RUNTIME,
        &CPUSET_CPUS,
        &CPUSET_MEMS,
        &CPU_IDLE,
        &KERNEL_MEMORY,
        &KERNEL_MEMORY_TCP,
        &MEMORY,
        &MEMORY_RESERVATION,
        &MEMORY_SWAP,
        &PIDS_LIMIT,
        &L3_CACHE_SCHEMA,
        &MEM_BW_SCHEMA,
    ],
    arity: Arity::Exactly(1),
    hidden: false,
    run,
};

fn run(context: &Context) -> Result<u8, Failure> {
    let mut container = context.container()?;
    let matches = &context.matches;
    let mut resources = match matches.text(&RESOURCES) {
        Some(file) => read(file)?,
        None => from_flags(matches)?,
    };
    complete(&mut resources);
    container.update(&resources, rdt(matches)?.as_ref())?;
    Ok(0)
}

fn read(file: &OsStr) -> Result<Resources, Failure> {
    let failed = |error| Failure::file("read", file, error);
    let mut bytes = Vec::new();
    let limit = CONFIG_BYTES_MAX as u64 + 1;
    if file == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    parse_json(&bytes, CONFIG_BYTES_MAX).map_err(|source| Failure::Parse {
        path: file.into(),
        source,
    })
}

/// The resources that the flags name, and nothing else.
fn from_flags(matches: &Matches) -> Result<Resources, Failure> {
    let memory = Memory {
        limit: size(matches, &MEMORY)?,
        reservation: size(matches, &MEMORY_RESERVATION)?,
        swap: size(matches, &MEMORY_SWAP)?,
        kernel: size(matches, &KERNEL_MEMORY)?,
        kernel_tcp: size(matches, &KERNEL_MEMORY_TCP)?,
        ..Memory::default()
    };
    let list = |flag| {
        matches
            .utf8(flag)
            .map(|list| list.unwrap_or_default().to_owned())
    };
    let cpu = Cpu {
        shares: number(matches, &CPU_SHARE)?,
        quota: number(matches, &CPU_QUOTA)?,
        burst: number(matches, &CPU_BURST)?,
        period: number(matches, &CPU_PERIOD)?,
        realtime_runtime: number(matches, &CPU_RT_RUNTIME)?,
        realtime_period: number(matches, &CPU_RT_PERIOD)?,
        cpus: list(&CPUSET_CPUS)?,
        mems: list(&CPUSET_MEMS)?,
        idle: number(matches, &CPU_IDLE)?,
    };
    let weight = match matches.integer(&BLKIO_WEIGHT) {
        None | Some(0) => None,
        Some(weight) => Some(u16::try_from(weight).map_err(|_| Failure::Value {
            what: "--blkio-weight",
            reason: format!("{weight} is out of range; use 10 to 1000"),
        })?),
    };
    let block_io = weight.map(|weight| BlockIo {
        weight: Some(weight),
        ..BlockIo::default()
    });
    Ok(Resources {
        memory: (!memory.is_empty()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: matches
            .integer(&PIDS_LIMIT)
            .map(|limit| Pids { limit: Some(limit) }),
        block_io,
        ..Resources::default()
    })
}

fn size(matches: &Matches, flag: &'static Flag) -> Result<Option<i64>, Failure> {
    parsed(
        matches,
        flag,
        "a size such as 512m, or -1",
        |text| match text {
            "-1" => Some(-1),
            text => i64::try_from(carrack_spec::parse_size(text)?).ok(),
        },
    )
}

fn number<T: std::str::FromStr>(
    matches: &Matches,
    flag: &'static Flag,
) -> Result<Option<T>, Failure> {
    parsed(matches, flag, "a number in range", |text| text.parse().ok())
}

fn parsed<T>(
    matches: &Matches,
    flag: &'static Flag,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let Some(text) = matches.utf8(flag)? else {
        return Ok(None);
    };
    match parse(text) {
        Some(value) => Ok(Some(value)),
        None => Err(Failure::Value {
            what: "invalid value",
            reason: format!("--{}: {text:?} is not {expected}", flag.name),
        }),
    }
}

/// Settings that make no sense alone get the partner that runc gives them.
fn complete(resources: &mut Resources) {
    if let Some(memory) = &mut resources.memory {
        if memory.limit == Some(-1) && memory.swap.is_none() {
            // A limit of memory and swap cannot stay below no limit of memory.
            memory.swap = Some(-1);
        }
        if memory.kernel.take().is_some() | memory.kernel_tcp.take().is_some() {
            log::warn!("kernel memory limits are ignored: the kernel no longer has them");
        }
    }
}

fn rdt(matches: &Matches) -> Result<Option<IntelRdt>, Failure> {
    let schema = |flag| {
        matches
            .utf8(flag)
            .map(|schema| schema.unwrap_or_default().to_owned())
    };
    let rdt = IntelRdt {
        l3_cache_schema: schema(&L3_CACHE_SCHEMA)?,
        mem_bw_schema: schema(&MEM_BW_SCHEMA)?,
        ..IntelRdt::default()
    };
    Ok((rdt != IntelRdt::default()).then_some(rdt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse;

    fn resources(line: &str) -> Result<Resources, Failure> {
        let words = line.split_whitespace().map(Into::into);
        let mut resources = from_flags(&parse(COMMAND.flags, words, false)?)?;
        complete(&mut resources);
        Ok(resources)
    }

    #[test]
    fn flags_become_the_limits_they_name_and_no_others() {
        assert_eq!(resources("id").unwrap(), Resources::default());
        let all = resources(
            "id --memory 512m --memory-swap -1 --memory-reservation 1g --cpu-quota -1 \
             --cpu-period 100000 --cpu-share 5 --cpuset-cpus 0-1 --pids-limit -1 --cpu-idle 1 \
             --blkio-weight 100 --cpu-burst 7",
        )
        .unwrap();
        let memory = all.memory.unwrap();
        assert_eq!(memory.limit, Some(512 << 20));
        assert_eq!(memory.swap, Some(-1));
        assert_eq!(memory.reservation, Some(1 << 30));
        let cpu = all.cpu.unwrap();
        assert_eq!(
            (cpu.quota, cpu.period, cpu.burst),
            (Some(-1), Some(100_000), Some(7))
        );
        assert_eq!(
            (cpu.shares, cpu.idle, cpu.cpus.as_str()),
            (Some(5), Some(1), "0-1")
        );
        assert_eq!(all.pids.unwrap().limit, Some(-1));
        assert_eq!(all.block_io.unwrap().weight, Some(100));
    }

    #[test]
    fn no_memory_limit_means_no_swap_limit() {
        let memory = resources("id --memory -1").unwrap().memory.unwrap();
        assert_eq!(memory.swap, Some(-1));
    }

    #[test]
    fn wrong_values_name_their_flag() {
        for line in [
            "id --memory lots",
            "id --cpu-share -1",
            "id --blkio-weight 70000",
            "id --cpu-quota 1.5",
        ] {
            let flag = line.split(' ').nth(1).unwrap();
            assert!(
                resources(line).unwrap_err().message().contains(flag),
                "{line}"
            );
        }
    }
}
