//! From image configuration and flags to the runtime's `config.json`: a pure function.
//!
//! What needs the machine (users looked up in the image, the profile's text, device nodes of a
//! privileged container) comes in as [`Facts`]; the same input always gives the same document.

mod seccomp;

pub use seccomp::profile as default_seccomp;

use crate::request::{Capability, Network, RunRequest, SeccompChoice};
use crate::user::Identity;
use carrack_spec::capability;
use carrack_spec::defaults::{self, Fit};
use carrack_spec::image::ImageConfig;
use carrack_spec::runtime::{
    Capabilities, Cpu, Device, DeviceRule, Linux, Memory, Mount, Namespace, NamespaceKind,
    OCI_VERSION, Pids, Process, Resources, Root, Seccomp, Spec, parse_json,
};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Largest seccomp profile that is read, in bytes.
const PROFILE_BYTES_MAX: usize = 4 << 20;
/// Period of a processor quota in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// What the machine and the image's files say.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Id of the container.
    pub id: String,
    /// The user, looked up.
    pub identity: Identity,
    /// Host directory with `hostname`, `hosts` and `resolv.conf` to mount into `/etc`.
    pub files: Option<PathBuf>,
    /// Device nodes of the host, for a privileged container.
    pub devices: Vec<Device>,
    /// The container is made in a user namespace, by an ordinary user.
    pub in_user_namespace: bool,
}

/// A request that does not make a container.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// Neither the image nor the user names a program.
    #[error("the image names no command; add one after the image")]
    NoCommand,
    /// The working directory is relative.
    #[error("working directory {0:?} must be an absolute path")]
    Workdir(String),
    /// An environment entry without a name.
    #[error("{0:?} is not an environment variable; use NAME=value")]
    Env(String),
    /// The seccomp profile is malformed.
    #[error("the seccomp profile is malformed")]
    Profile(#[source] carrack_spec::runtime::ParseError),
    /// The seccomp profile is of docker's own form.
    #[error(
        "the seccomp profile uses {0:?}, which only docker's own form has; use the form of the OCI runtime specification"
    )]
    ProfileForm(&'static str),
    /// A document could not be written.
    #[error("cannot write the configuration")]
    Write(#[source] serde_json::Error),
}

/// Composes the configuration of a container whose root file system is at `rootfs` of its bundle.
///
/// # Errors
/// [`ComposeError`] says which wish cannot be met.
pub fn compose(
    image: &ImageConfig,
    request: &RunRequest,
    facts: &Facts,
) -> Result<Spec, ComposeError> {
    let capabilities = capabilities(request);
    let hostname = request
        .hostname
        .clone()
        .unwrap_or_else(|| facts.id.chars().take(12).collect());
    let process = process(image, request, facts, &hostname, &capabilities)?;
    let paths = |list: &[&str]| -> Vec<String> {
        let kept = if request.privileged { &[] } else { list };
        kept.iter().map(|p| (*p).to_owned()).collect()
    };
    Ok(Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process),
        root: Some(Root {
            path: "rootfs".to_owned(),
            readonly: request.read_only,
        }),
        hostname,
        mounts: mounts(request, facts),
        linux: Some(Linux {
            resources: Some(resources(request)),
            cgroups_path: format!("/carrack-{}", facts.id),
            namespaces: namespaces(request.network),
            devices: if request.privileged {
                facts.devices.clone()
            } else {
                Vec::new()
            },
            seccomp: filter(request, &capabilities)?,
            masked_paths: paths(&defaults::MASKED_PATHS),
            readonly_paths: paths(&defaults::READONLY_PATHS),
            ..Linux::default()
        }),
        ..Spec::default()
    })
}

fn process(
    image: &ImageConfig,
    request: &RunRequest,
    facts: &Facts,
    hostname: &str,
    capabilities: &[String],
) -> Result<Process, ComposeError> {
    let cwd = match (&request.workdir, image.config.working_dir.as_str()) {
        (Some(wanted), _) if !wanted.starts_with('/') => {
            return Err(ComposeError::Workdir(wanted.clone()));
        }
        (Some(wanted), _) => wanted.clone(),
        (None, "") => "/".to_owned(),
        // Some images name it relative to the root.
        (None, path) => format!("/{}", path.trim_start_matches('/')),
    };
    // Only root holds its capabilities from the start; others gain them by programs that are so marked.
    let held = if facts.identity.user.uid == 0 {
        capabilities.to_vec()
    } else {
        Vec::new()
    };
    Ok(Process {
        terminal: request.terminal.is_some(),
        console_size: request
            .terminal
            .filter(|size| size.height > 0 && size.width > 0),
        user: facts.identity.user.clone(),
        args: command(image, request)?,
        env: environment(image, request, facts, hostname)?,
        cwd,
        capabilities: Some(Capabilities {
            bounding: capabilities.to_vec(),
            effective: held.clone(),
            permitted: held,
            ..Capabilities::default()
        }),
        rlimits: request.ulimits.iter().map(|u| u.0.clone()).collect(),
        no_new_privileges: request.no_new_privileges,
        ..Process::default()
    })
}

/// The user's entry point drops the image's command, as its words would not fit.
fn command(image: &ImageConfig, request: &RunRequest) -> Result<Vec<String>, ComposeError> {
    let (entrypoint, default) = match &request.entrypoint {
        Some(wanted) => (wanted, [].as_slice()),
        None => (&image.config.entrypoint, image.config.cmd.as_slice()),
    };
    let words = if request.command.is_empty() {
        default
    } else {
        &request.command
    };
    let args: Vec<String> = entrypoint.iter().chain(words).cloned().collect();
    match args.first().map(String::as_str) {
        None | Some("") => Err(ComposeError::NoCommand),
        Some(_) => Ok(args),
    }
}

fn environment(
    image: &ImageConfig,
    request: &RunRequest,
    facts: &Facts,
    hostname: &str,
) -> Result<Vec<String>, ComposeError> {
    let mut env: Vec<String> = vec![
        format!("PATH={}", defaults::PATH),
        format!("HOSTNAME={hostname}"),
    ];
    if request.terminal.is_some() {
        env.push("TERM=xterm".to_owned());
    }
    env.push(format!("HOME={}", facts.identity.home));
    for entry in image.config.env.iter().chain(&request.env) {
        let (name, _) = entry
            .split_once('=')
            .ok_or_else(|| ComposeError::Env(entry.clone()))?;
        if name.is_empty() || entry.contains('\0') {
            return Err(ComposeError::Env(entry.clone()));
        }
        let same = |e: &String| e.split_once('=').is_some_and(|(n, _)| n == name);
        match env.iter().position(same).and_then(|i| env.get_mut(i)) {
            Some(slot) => slot.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    Ok(env)
}

/// Dropping comes before adding, so `--cap-drop ALL --cap-add X` leaves X alone.
fn capabilities(request: &RunRequest) -> Vec<String> {
    let mut set: BTreeSet<&str> = match request.privileged {
        true => capability::NAMES.into(),
        false => defaults::CAPABILITIES.into(),
    };
    if request.cap_add.contains(&Capability::All) {
        set.extend(capability::NAMES);
    }
    for drop in &request.cap_drop {
        match drop {
            Capability::All => set.clear(),
            Capability::One(name) => {
                set.remove(name);
            }
        }
    }
    set.extend(request.cap_add.iter().filter_map(|add| match add {
        Capability::One(name) => Some(*name),
        Capability::All => None,
    }));
    set.into_iter().map(str::to_owned).collect()
}

fn filter(
    request: &RunRequest,
    capabilities: &[String],
) -> Result<Option<Box<RawValue>>, ComposeError> {
    match &request.seccomp {
        SeccompChoice::Unconfined => Ok(None),
        SeccompChoice::Default if request.privileged => Ok(None),
        SeccompChoice::Default => to_raw_value(&default_seccomp(capabilities))
            .map(Some)
            .map_err(ComposeError::Write),
        SeccompChoice::Profile(text) => {
            let value: serde_json::Value =
                parse_json(text.as_bytes(), PROFILE_BYTES_MAX).map_err(ComposeError::Profile)?;
            let rules = value
                .get("syscalls")
                .and_then(|s| s.as_array())
                .map(Vec::as_slice)
                .unwrap_or_default();
            // Read without them, such a profile would allow more than it says.
            for key in ["includes", "excludes"] {
                let used = |r: &serde_json::Value| {
                    r.get(key)
                        .and_then(|v| v.as_object())
                        .is_some_and(|o| !o.is_empty())
                };
                if rules.iter().any(used) {
                    return Err(ComposeError::ProfileForm(key));
                }
            }
            if value.get("archMap").is_some() {
                return Err(ComposeError::ProfileForm("archMap"));
            }
            let profile: Seccomp =
                parse_json(text.as_bytes(), PROFILE_BYTES_MAX).map_err(ComposeError::Profile)?;
            to_raw_value(&profile)
                .map(Some)
                .map_err(ComposeError::Write)
        }
    }
}

fn namespaces(network: Network) -> Vec<Namespace> {
    use NamespaceKind::{Cgroup, Ipc, Mount, Network as Net, Pid, Uts};
    let kinds = [Pid, Mount, Ipc, Uts, Cgroup]
        .into_iter()
        .chain((network == Network::None).then_some(Net));
    kinds
        .map(|kind| Namespace {
            kind,
            path: String::new(),
        })
        .collect()
}

/// The kernel's file systems first, then the files for `/etc`, then what the user asked for, in order
/// of depth; a later mount at the same place stands for the earlier one.
fn mounts(request: &RunRequest, facts: &Facts) -> Vec<Mount> {
    let mut all = defaults::mounts(Fit {
        own_sysfs: !facts.in_user_namespace || request.network == Network::None,
        own_ipc: true,
        tty_group: true,
        writable: request.privileged,
    });
    if let Some(files) = &facts.files {
        for name in ["hostname", "hosts", "resolv.conf"] {
            let source = files.join(name);
            all.push(Mount::new(
                &format!("/etc/{name}"),
                "bind",
                &source.to_string_lossy(),
                &["bind", "rprivate"],
            ));
        }
    }
    let mut wanted: Vec<Mount> = Vec::new();
    for tmpfs in &request.tmpfs {
        let mut m = Mount::new(
            &tmpfs.destination,
            "tmpfs",
            "tmpfs",
            &["nosuid", "nodev", "noexec"],
        );
        m.options.extend(tmpfs.options.iter().cloned());
        wanted.push(m);
    }
    for volume in &request.volumes {
        let mut m = Mount::new(
            &volume.destination,
            "bind",
            &volume.source.to_string_lossy(),
            &[],
        );
        m.options.clone_from(&volume.options);
        let has = |names: &[&str]| volume.options.iter().any(|o| names.contains(&o.as_str()));
        if !has(&["bind", "rbind"]) {
            m.options.push("rbind".to_owned());
        }
        if !has(&["private", "rprivate", "slave", "rslave"]) {
            m.options.push("rprivate".to_owned());
        }
        wanted.push(m);
    }
    let depth = |m: &Mount| m.destination.split('/').filter(|p| !p.is_empty()).count();
    wanted.sort_by_key(depth);
    let place = |m: &Mount| m.destination.trim_end_matches('/').to_owned();
    for m in &wanted {
        all.retain(|other| place(other) != place(m));
    }
    all.extend(wanted);
    all
}

fn resources(request: &RunRequest) -> Resources {
    let limits = &request.limits;
    let everything = DeviceRule {
        allow: request.privileged,
        access: "rwm".to_owned(),
        ..DeviceRule::default()
    };
    let devices = match request.privileged {
        true => vec![everything],
        false => [everything]
            .into_iter()
            .chain(defaults::device_rules())
            .collect(),
    };
    let cpu = (limits.cpu_millis.is_some() || limits.cpu_shares.is_some()).then(|| Cpu {
        shares: limits.cpu_shares,
        quota: limits
            .cpu_millis
            .map(|m| i64::from(m) * (CPU_PERIOD_US as i64) / 1000),
        period: limits.cpu_millis.map(|_| CPU_PERIOD_US),
        ..Cpu::default()
    });
    Resources {
        devices,
        memory: limits.memory.map(|limit| Memory {
            limit: Some(limit),
            ..Memory::default()
        }),
        cpu,
        pids: limits.pids.map(|limit| Pids { limit: Some(limit) }),
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests;
