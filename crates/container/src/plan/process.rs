//! The process of a container or of an exec, planned.

use super::TerminalPlan;
use super::caps::{CapPlan, cap_plan};
use crate::error::{Error, Names};
use carrack_spec::runtime::{
    IoPriority, Linux, MemoryPolicy, Personality, Process, Scheduler, Spec,
};
use carrack_spec::{ContainerId, defaults};
use carrack_sys::cred::CapBits;
use carrack_sys::exec::CVec;
use carrack_sys::sched::{BitSet, SchedAttr};
use carrack_sys::seccomp::SockFilter;
use rustix::process::{Resource, Rlimit};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// CAP_SYS_RESOURCE.
const CAP_SYS_RESOURCE: u32 = 24;

/// All that turns a prepared child into the program.
#[derive(Debug)]
pub struct ProcessPlan {
    /// `argv`.
    pub args: CVec,
    /// `envp`.
    pub env: CVec,
    /// Files to try, in order.
    pub candidates: Vec<CString>,
    /// Working directory.
    pub cwd: CString,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; `None` leaves them.
    pub groups: Option<Vec<u32>>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities; `None` leaves them.
    pub caps: Option<CapPlan>,
    /// Limits to set.
    pub rlimits: Vec<(Resource, Rlimit)>,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Value for `oom_score_adj`.
    pub oom_score_adj: Option<CString>,
    /// Name of a new session keyring (exec).
    pub keyring: Option<CString>,
    /// Scheduling attributes.
    pub scheduler: Option<SchedAttr>,
    /// Packed I/O priority.
    pub io_priority: Option<i32>,
    /// NUMA mode with flags, and nodes.
    pub memory_policy: Option<(i32, BitSet)>,
    /// CPUs before the cgroup (exec), which the parent passes on.
    pub initial_affinity: Option<BitSet>,
    /// CPUs, once in the cgroup.
    pub affinity: Option<BitSet>,
    /// Execution domain.
    pub personality: Option<u32>,
    /// What to write to the AppArmor exec attribute.
    pub apparmor: Option<CString>,
    /// SELinux label.
    pub selinux: Option<CString>,
    /// System call filter.
    pub seccomp: Option<SeccompPlan>,
    /// Terminal.
    pub terminal: Option<TerminalPlan>,
    /// Standard streams, when not inherited.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Descriptors from 3 on that the program inherits.
    pub preserve_fds: u32,
    /// Give the standard streams to the user.
    pub own_streams: bool,
    /// Standard streams that are the host's `/dev/null` and become the container's.
    pub null_streams: [bool; 3],
    /// Fail where the lenient mode warns.
    pub strict: bool,
}

/// A compiled filter.
#[derive(Debug)]
pub struct SeccompPlan {
    /// The program.
    pub program: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: u64,
    /// Some rule notifies: hand the descriptor on.
    pub listener: bool,
}

/// What the caller knows beyond the configuration.
pub struct ProcessContext<'a> {
    /// Capabilities that can be given.
    pub available: CapBits,
    /// What the caller's own effective set is, for limits that need rights on the host.
    pub own: CapBits,
    /// Fail where the lenient mode warns.
    pub strict: bool,
    /// The process lives in a user namespace of its own.
    pub user_namespace: bool,
    /// setgroups(2) is denied (rootless with a single id).
    pub groups_denied: bool,
    /// Leave the caller's supplementary groups (`run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// `HOME` when the environment has none.
    pub home: Option<String>,
    /// More environment.
    pub extra_env: &'a [String],
}

/// Plans the process. Streams, terminal, filter, keyring and what
/// [`ProcessPlan::add_linux`] knows are for the caller to add.
pub fn process_plan(process: &Process, context: &ProcessContext<'_>) -> Result<ProcessPlan, Error> {
    let program = process
        .args
        .first()
        .filter(|program| !program.is_empty())
        .ok_or_else(|| Error::invalid("process.args", "there is no program to run"))?;
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid(
            "process.cwd",
            format!("{:?} is not an absolute path", process.cwd),
        ));
    }
    exec_affinity(process)?;
    let user = &process.user;
    let (args, env) = (
        c_strings(&process.args, "process.args")?,
        environment(process, context)?,
    );
    Ok(ProcessPlan {
        candidates: candidates(program, &env)?,
        args: CVec::new(args),
        env: CVec::new(env),
        cwd: c_string(&process.cwd, "process.cwd")?,
        uid: user.uid,
        gid: user.gid,
        groups: groups(process, context)?,
        umask: umask(user.umask)?,
        caps: process
            .capabilities
            .as_ref()
            .map(|caps| cap_plan(caps, context.available, context.strict))
            .transpose()?,
        rlimits: rlimits(process, context)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: oom_score_adj(process)?,
        keyring: None,
        scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
        memory_policy: None,
        initial_affinity: None,
        // Every processor of the cpuset, whatever the caller was pinned to.
        affinity: Some(BitSet([u64::MAX; 16])),
        personality: None,
        apparmor: match process.apparmor_profile.as_str() {
            "" => None,
            profile => Some(c_string(
                &format!("exec {profile}"),
                "process.apparmorProfile",
            )?),
        },
        selinux: match process.selinux_label.as_str() {
            "" => None,
            label => Some(c_string(label, "process.selinuxLabel")?),
        },
        seccomp: None,
        terminal: None,
        stdio: None,
        preserve_fds: 0,
        null_streams: [false; 3],
        own_streams: user.uid != 0 || context.user_namespace,
        strict: context.strict,
    })
}

impl ProcessPlan {
    /// Adds what the configuration has in `linux` for every process of the container.
    pub fn add_linux(&mut self, linux: &Linux) -> Result<(), Error> {
        self.memory_policy = linux
            .memory_policy
            .as_ref()
            .map(memory_policy)
            .transpose()?;
        self.personality = linux.personality.as_ref().map(personality).transpose()?;
        Ok(())
    }
}

/// The name of a container's session keyring.
pub fn session_keyring(id: &ContainerId) -> Result<CString, Error> {
    c_string(&format!("_ses.{id}"), "id")
}

/// A string as the kernel takes it.
pub fn c_string(text: &str, field: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::invalid(field, format!("{text:?} contains a NUL byte")))
}

fn c_strings(list: &[String], field: &str) -> Result<Vec<CString>, Error> {
    list.iter()
        .enumerate()
        .map(|(index, text)| c_string(text, &format!("{field}[{index}]")))
        .collect()
}

fn environment(process: &Process, context: &ProcessContext<'_>) -> Result<Vec<CString>, Error> {
    let mut env = c_strings(&process.env, "process.env")?;
    for (index, variable) in process.env.iter().enumerate() {
        if variable.find('=').is_none_or(|at| at == 0) {
            let reason = format!("{variable:?} is not of the form NAME=value");
            return Err(Error::invalid(format!("process.env[{index}]"), reason));
        }
    }
    env.extend(c_strings(context.extra_env, "environment of the runtime")?);
    let has_home = env
        .iter()
        .rev()
        .find_map(|variable| variable.to_bytes().strip_prefix(b"HOME="))
        .is_some_and(|home| !home.is_empty());
    if let Some(home) = context.home.as_ref().filter(|_| !has_home) {
        env.push(c_string(&format!("HOME={home}"), "HOME")?);
    }
    keep_last(&mut env);
    Ok(env)
}

/// Of several settings of a name, keeps the last in the place of the first: getenv(3)
/// and shells differ in which one they would find.
fn keep_last(env: &mut Vec<CString>) {
    let mut places = BTreeMap::new();
    for variable in std::mem::take(env) {
        let bytes = variable.to_bytes();
        let end = bytes.iter().position(|&byte| byte == b'=');
        let name = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        match places.entry(name.to_vec()) {
            Entry::Vacant(entry) => {
                entry.insert(env.len());
                env.push(variable);
            }
            Entry::Occupied(entry) => {
                if let Some(earlier) = env.get_mut(*entry.get()) {
                    *earlier = variable;
                }
            }
        }
    }
}

/// The files that `program` can mean: itself when it has a slash, else one in each directory of `PATH`.
fn candidates(program: &str, env: &[CString]) -> Result<Vec<CString>, Error> {
    if program.contains('/') {
        return Ok(vec![c_string(program, "process.args[0]")?]);
    }
    // Of several settings, the last one is what the program itself would see from most shells.
    let path = env
        .iter()
        .rev()
        .find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
    let path = path.map_or(defaults::PATH.into(), String::from_utf8_lossy);
    path.split(':')
        .map(|directory| match directory {
            // An empty element is the working directory, which other runtimes do not search either.
            "" => format!("./{program}"),
            directory => format!("{directory}/{program}"),
        })
        .filter(|candidate| candidate.starts_with('/'))
        .map(|candidate| c_string(&candidate, "process.args[0]"))
        .collect()
}

/// Whether every process of the container keeps the caller's supplementary groups, as rootless
/// engines ask for access to files of a group (`run.oci.keep_original_groups`).
pub fn keeps_groups(spec: &Spec) -> bool {
    let value = spec.annotations.get("run.oci.keep_original_groups");
    value.is_some_and(|value| value != "0" && value != "false")
}

fn groups(process: &Process, context: &ProcessContext<'_>) -> Result<Option<Vec<u32>>, Error> {
    let wanted = &process.user.additional_gids;
    if context.groups_denied && !wanted.is_empty() {
        let reason =
            "supplementary groups cannot be set in a user namespace with a single id mapping";
        return Err(Error::invalid("process.user.additionalGids", reason));
    }
    let keep = context.groups_denied || context.keep_groups;
    Ok(if keep { None } else { Some(wanted.clone()) })
}

/// Limits by name; the numbers are those of `asm-generic/resource.h`.
const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// Limits; one above the hard limit that the caller may not raise is cut down
/// to it with a warning, or refused in strict mode.
fn rlimits(
    process: &Process,
    context: &ProcessContext<'_>,
) -> Result<Vec<(Resource, Rlimit)>, Error> {
    let may_raise = context.own & (1 << CAP_SYS_RESOURCE) != 0;
    let mut plan: Vec<(Resource, Rlimit)> = Vec::with_capacity(process.rlimits.len());
    for (index, limit) in process.rlimits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let resource = RLIMITS
            .iter()
            .find_map(|(name, resource)| (*name == limit.kind).then_some(*resource))
            .ok_or_else(|| Error::invalid(&field, format!("there is no limit {:?}", limit.kind)))?;
        if plan.iter().any(|(seen, _)| *seen == resource) {
            return Err(Error::invalid(
                &field,
                format!("{} is set twice", limit.kind),
            ));
        }
        if limit.soft > limit.hard {
            return Err(Error::invalid(
                &field,
                format!("soft {} is above hard {}", limit.soft, limit.hard),
            ));
        }
        let (mut soft, mut hard) = (limit.soft, limit.hard);
        let own = rustix::process::getrlimit(resource)
            .maximum
            .unwrap_or(u64::MAX);
        if hard > own && !may_raise {
            let reason = format!(
                "{}: hard {hard} is above {own}, and the runtime lacks CAP_SYS_RESOURCE",
                limit.kind
            );
            if context.strict {
                return Err(Error::invalid(&field, reason));
            }
            log::warn!("config.json: {field}: {reason}; it is set to {own}");
            (soft, hard) = (soft.min(own), own);
        }
        let bound = |value: u64| (value != u64::MAX).then_some(value);
        plan.push((
            resource,
            Rlimit {
                current: bound(soft),
                maximum: bound(hard),
            },
        ));
    }
    Ok(plan)
}

fn umask(wanted: Option<u32>) -> Result<u32, Error> {
    let mask = wanted.unwrap_or(0o022);
    if mask > 0o7777 {
        let reason = format!("{mask:#o} has bits that are no permissions");
        return Err(Error::invalid("process.user.umask", reason));
    }
    Ok(mask)
}

fn oom_score_adj(process: &Process) -> Result<Option<CString>, Error> {
    let Some(value) = process.oom_score_adj else {
        return Ok(None);
    };
    if !(-1000..=1000).contains(&value) {
        return Err(Error::invalid(
            "process.oomScoreAdj",
            format!("{value} is not in -1000 to 1000"),
        ));
    }
    c_string(&value.to_string(), "process.oomScoreAdj").map(Some)
}

fn named<T: Copy>(table: &[(&str, T)], name: &str, field: &str) -> Result<T, Error> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(known, _)| *known).collect();
        Error::invalid(field, format!("{name:?} is none of {}", names.join(", ")))
    })
}

/// Numbers of `linux/sched.h`.
fn scheduler(wanted: &Scheduler) -> Result<SchedAttr, Error> {
    const POLICIES: [(&str, u32); 7] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let policy = named(&POLICIES, &wanted.policy, "process.scheduler.policy")?;
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= named(&FLAGS, flag, "process.scheduler.flags")?;
    }
    let real_time = matches!(policy, 1 | 2);
    let priority = wanted.priority.unwrap_or(0);
    if priority != 0 && !real_time {
        return Err(Error::invalid(
            "process.scheduler.priority",
            "only SCHED_FIFO and SCHED_RR have one",
        ));
    }
    let deadline = [wanted.runtime, wanted.deadline, wanted.period];
    if policy != 6 && deadline.iter().flatten().any(|&n| n != 0) {
        return Err(Error::invalid(
            "process.scheduler",
            "runtime, deadline and period are for SCHED_DEADLINE",
        ));
    }
    let nice = wanted.nice.unwrap_or(0);
    if !(-20..20).contains(&nice) {
        // The kernel would take the nearest that it has.
        return Err(Error::invalid(
            "process.scheduler.nice",
            format!("{nice} is not in -20 to 19"),
        ));
    }
    Ok(SchedAttr {
        policy,
        flags,
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| Error::invalid("process.scheduler.priority", "it is negative"))?,
        runtime: wanted.runtime.unwrap_or(0),
        deadline: wanted.deadline.unwrap_or(0),
        period: wanted.period.unwrap_or(0),
        ..SchedAttr::default()
    })
}

/// Class and level packed as the kernel takes them (`linux/ioprio.h`).
fn io_priority(wanted: &IoPriority) -> Result<i32, Error> {
    const CLASSES: [(&str, i32); 3] = [
        ("IOPRIO_CLASS_RT", 1),
        ("IOPRIO_CLASS_BE", 2),
        ("IOPRIO_CLASS_IDLE", 3),
    ];
    let class = named(&CLASSES, &wanted.class, "process.ioPriority.class")?;
    let level = wanted.priority.unwrap_or(0);
    if !(0..8).contains(&level) {
        return Err(Error::invalid(
            "process.ioPriority.priority",
            format!("{level} is not in 0 to 7"),
        ));
    }
    Ok(class << 13 | level)
}

/// Mode with flags, and nodes (`linux/mempolicy.h`).
fn memory_policy(wanted: &MemoryPolicy) -> Result<(i32, BitSet), Error> {
    // In the words that callers of runc look for.
    const FIELD: &str = "linux.memoryPolicy: invalid memory policy";
    let mode = named(&MEMORY_MODES, &wanted.mode, &format!("{FIELD} mode"))?;
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= named(&MEMORY_FLAGS, flag, &format!("{FIELD} flag"))?;
    }
    Ok((
        mode | flags,
        bit_set(&wanted.nodes, &format!("{FIELD} node"))?,
    ))
}

/// NUMA modes.
pub const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// NUMA mode flags.
pub const MEMORY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// Execution domain number.
fn personality(wanted: &Personality) -> Result<u32, Error> {
    if !wanted.flags.is_empty() {
        return Err(Error::invalid(
            "linux.personality.flags",
            "no flags are defined",
        ));
    }
    named(
        &[("LINUX", 0), ("LINUX32", 8)],
        &wanted.domain,
        "linux.personality.domain",
    )
}

/// A list such as `0-3,7` as a set.
pub fn bit_set(list: &str, field: &str) -> Result<BitSet, Error> {
    let wrong = || {
        Error::invalid(
            field,
            format!("{list:?} is no list such as 0-3,7 (at most 1023)"),
        )
    };
    let mut set = BitSet([0; 16]);
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last >= 1024 {
            return Err(wrong());
        }
        for n in first..=last {
            set.0[n / 64] |= 1 << (n % 64);
        }
    }
    Ok(set)
}

/// Where an exec runs before it enters the container's cgroup, and after.
pub fn exec_affinity(process: &Process) -> Result<(Option<BitSet>, Option<BitSet>), Error> {
    let set = |list: &String, part: &str| match list.as_str() {
        "" => Ok(None),
        list => bit_set(list, &format!("process.execCPUAffinity.{part}")).map(Some),
    };
    let Some(wanted) = &process.exec_cpu_affinity else {
        return Ok((None, None));
    };
    Ok((
        set(&wanted.initial, "initial")?,
        set(&wanted.last, "final")?,
    ))
}

/// Turns a compiled program into what the child loads.
pub fn seccomp_plan(program: carrack_seccomp::Program) -> SeccompPlan {
    let instructions = program.instructions.iter();
    SeccompPlan {
        program: instructions
            .map(|i| SockFilter {
                code: i.code,
                jt: i.jt,
                jf: i.jf,
                k: i.k,
            })
            .collect(),
        flags: u64::from(program.flags),
        listener: program.listener,
    }
}

/// Fills in what the words for a failed process need.
pub fn name_process(names: &mut Names, process: &Process) {
    names.program = process.args.first().cloned().unwrap_or_default();
    names.cwd.clone_from(&process.cwd);
    names.rlimits = process
        .rlimits
        .iter()
        .map(|limit| limit.kind.clone())
        .collect();
    names.user = format!("{}:{}", process.user.uid, process.user.gid);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ProcessContext<'static> {
        ProcessContext {
            available: 0,
            own: 0,
            strict: false,
            user_namespace: false,
            groups_denied: false,
            keep_groups: false,
            home: Some("/root".into()),
            extra_env: &[],
        }
    }

    fn process(json: &str) -> Process {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_program_without_a_slash_is_sought_in_path() {
        let plan = process_plan(
            &process(r#"{"args":["sh","-c","x"],"cwd":"/","env":["PATH=/a::/b:rel","A=1"]}"#),
            &context(),
        )
        .unwrap();
        let found: Vec<_> = plan
            .candidates
            .iter()
            .map(|c| c.to_str().unwrap())
            .collect();
        assert_eq!(found, ["/a/sh", "/b/sh"]);
        assert_eq!(
            plan.env.strings().last().unwrap().to_str(),
            Ok("HOME=/root")
        );
        assert_eq!(plan.groups, Some(vec![]));
    }

    #[test]
    fn bad_processes_are_refused_by_field() {
        for (json, field) in [
            (r#"{"cwd":"/"}"#, "process.args"),
            (r#"{"args":[""],"cwd":"/"}"#, "process.args"),
            (r#"{"args":["x"],"cwd":"rel"}"#, "process.cwd"),
            (r#"{"args":["x\u0000y"],"cwd":"/"}"#, "process.args[0]"),
            (
                r#"{"args":["x"],"cwd":"/","env":["NOEQUALS"]}"#,
                "process.env[0]",
            ),
            (
                r#"{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_X","hard":1,"soft":1}]}"#,
                "process.rlimits[0]",
            ),
            (
                r#"{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_CPU","hard":1,"soft":2}]}"#,
                "process.rlimits[0]",
            ),
            (
                r#"{"args":["x"],"cwd":"/","oomScoreAdj":5000}"#,
                "process.oomScoreAdj",
            ),
            (
                r#"{"args":["x"],"cwd":"/","ioPriority":{"class":"IOPRIO_CLASS_BE","priority":9}}"#,
                "process.ioPriority",
            ),
            (
                r#"{"args":["x"],"cwd":"/","scheduler":{"policy":"SCHED_FAST"}}"#,
                "process.scheduler.policy",
            ),
            (
                r#"{"args":["x"],"cwd":"/","scheduler":{"policy":"SCHED_OTHER","nice":20}}"#,
                "process.scheduler.nice",
            ),
            (
                r#"{"args":["x"],"cwd":"/","user":{"umask":65535}}"#,
                "process.user.umask",
            ),
            (
                r#"{"args":["x"],"cwd":"/","execCPUAffinity":{"initial":"all"}}"#,
                "process.execCPUAffinity.initial",
            ),
            (
                r#"{"args":["x"],"cwd":"/","execCPUAffinity":{"final":"2-1"}}"#,
                "process.execCPUAffinity.final",
            ),
        ] {
            let error = process_plan(&process(json), &context())
                .unwrap_err()
                .to_string();
            assert!(error.contains(field), "{json}: {error}");
        }
    }

    #[test]
    fn lists_become_sets() {
        assert_eq!(bit_set("0-2,65", "f").unwrap().0[..2], [7, 2]);
        assert!(bit_set("", "f").is_ok());
        for bad in ["2-1", "x", "1024", "-", "1-"] {
            assert!(bit_set(bad, "f").is_err(), "{bad}");
        }
    }
}
