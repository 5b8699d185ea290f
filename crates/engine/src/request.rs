//! What a user asks of a container, parsed: the values of command line flags as types.
//!
//! Parsing is pure: a path is taken as it stands, names of users are looked up later, inside the image.

use carrack_spec::runtime::{ConsoleSize, Rlimit};
use carrack_spec::{ContainerId, capability};
use std::path::PathBuf;
use std::str::FromStr;

/// Everything `run` is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRequest {
    /// Image, by reference or id.
    pub image: String,
    /// Words after the image; replace the image's own.
    pub command: Vec<String>,
    /// Replaces the image's entry point; empty takes it away.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, in order; later ones win.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// Supplementary groups, names or numbers.
    pub groups: Vec<String>,
    /// Name of the container; random when absent.
    pub name: Option<ContainerId>,
    /// Host name; the start of the id when absent.
    pub hostname: Option<String>,
    /// Give the process a terminal of this size.
    pub terminal: Option<ConsoleSize>,
    /// Remove everything of the container when it ends.
    pub remove: bool,
    /// Host directories and files to see inside.
    pub volumes: Vec<Volume>,
    /// Memory file systems: destination and options.
    pub tmpfs: Vec<Tmpfs>,
    /// Root file system cannot be written.
    pub read_only: bool,
    /// Limits of resources.
    pub limits: Limits,
    /// The network.
    pub network: Network,
    /// Capabilities to add; `ALL` for every one.
    pub cap_add: Vec<Capability>,
    /// Capabilities to take away; `ALL` for every one.
    pub cap_drop: Vec<Capability>,
    /// No confinement but namespaces.
    pub privileged: bool,
    /// No gain of rights by set-user-id programs.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
}

/// Limits of resources; absent is no limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Processors, in thousandths.
    pub cpu_millis: Option<u32>,
    /// Relative weight of processor time.
    pub cpu_shares: Option<u64>,
    /// Number of processes and threads; -1 is no limit.
    pub pids: Option<i64>,
}

/// What of the network a container sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of its own with a loopback interface only.
    #[default]
    None,
    /// The host's.
    Host,
}

/// A system call filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum SeccompChoice {
    /// The one of [`crate::compose::default_seccomp`].
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The text of a profile in the form of the OCI runtime specification.
    Profile(String),
}

/// A host path to see inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Where on the host.
    pub source: PathBuf,
    /// Where inside, absolute.
    pub destination: String,
    /// Mount options, `ro` or `rw` first.
    pub options: Vec<String>,
}

/// A memory file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where inside, absolute.
    pub destination: String,
    /// Mount options beside the default ones.
    pub options: Vec<String>,
}

/// A capability by its `CAP_` name, or `ALL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// Every one.
    All,
    /// One.
    One(&'static str),
}

/// A resource limit of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit(pub Rlimit);

/// A flag's value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A volume is not HOST:CONTAINER\[:OPTIONS\].
    #[error("{0:?}: expected HOST_PATH:CONTAINER_PATH[:OPTIONS]")]
    Volume(String),
    /// A volume without a host path.
    #[error(
        "{0:?}: named and anonymous volumes do not exist here yet; name a host path that starts with / or ."
    )]
    NamedVolume(String),
    /// A path inside the container is not absolute.
    #[error("{0:?} must be an absolute path inside the container")]
    Relative(String),
    /// An unknown option of a volume.
    #[error(
        "volume option {0:?} is not known; use ro, rw, exec, noexec, suid, nosuid, dev, nodev, bind, rbind, private, rprivate, slave or rslave"
    )]
    VolumeOption(String),
    /// Mounts made inside cannot reach the host.
    #[error(
        "volume option {0:?}: mounts made inside a container are never shared with the host; use rslave for the other direction"
    )]
    Shared(String),
    /// Not a number of bytes.
    #[error("{0:?} is not a size; use a number of bytes with an optional b, k, m, g or t")]
    Size(String),
    /// Not a number of processors.
    #[error("{0:?} is not a number of CPUs; use for example 0.5 or 2")]
    Cpus(String),
    /// No such network.
    #[error("network {0:?} is not known; use none or host")]
    Network(String),
    /// No such capability.
    #[error(
        "capability {0:?} is not known; use a name of capabilities(7), with or without CAP_, or ALL"
    )]
    Capability(String),
    /// Not a resource limit.
    #[error(
        "{0:?}: expected NAME=SOFT[:HARD] with a name such as nofile, nproc, core or stack; -1 is no limit"
    )]
    Ulimit(String),
}

impl FromStr for Volume {
    type Err = RequestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut parts = s.split(':');
        let (source, destination, options) =
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(source), Some(destination), options, None) => (source, destination, options),
                (Some(_), None, ..) => return Err(RequestError::NamedVolume(s.to_owned())),
                _ => return Err(RequestError::Volume(s.to_owned())),
            };
        if source.is_empty() || destination.is_empty() {
            return Err(RequestError::Volume(s.to_owned()));
        }
        if !source.starts_with(['/', '.']) {
            return Err(RequestError::NamedVolume(s.to_owned()));
        }
        absolute(destination)?;
        let mut kept = Vec::new();
        for option in options
            .unwrap_or_default()
            .split(',')
            .filter(|o| !o.is_empty())
        {
            match option {
                "ro" | "rw" | "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "bind"
                | "rbind" | "private" | "rprivate" | "slave" | "rslave" => {
                    kept.push(option.to_owned())
                }
                // Labels of SELinux, and consistency hints of other systems: nothing to do here.
                "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" => {}
                "shared" | "rshared" => return Err(RequestError::Shared(option.to_owned())),
                other => return Err(RequestError::VolumeOption(other.to_owned())),
            }
        }
        Ok(Self {
            source: source.into(),
            destination: destination.to_owned(),
            options: kept,
        })
    }
}

impl FromStr for Tmpfs {
    type Err = RequestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (destination, options) = s.split_once(':').unwrap_or((s, ""));
        absolute(destination)?;
        let options = options
            .split(',')
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(Self {
            destination: destination.to_owned(),
            options,
        })
    }
}

impl FromStr for Network {
    type Err = RequestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(RequestError::Network(other.to_owned())),
        }
    }
}

impl FromStr for Capability {
    type Err = RequestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.eq_ignore_ascii_case("ALL") {
            return Ok(Self::All);
        }
        capability::full_name(s)
            .map(Self::One)
            .ok_or_else(|| RequestError::Capability(s.to_owned()))
    }
}

impl FromStr for Ulimit {
    type Err = RequestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        const NAMES: [&str; 16] = [
            "as",
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let bad = || RequestError::Ulimit(s.to_owned());
        let (name, values) = s.split_once('=').ok_or_else(bad)?;
        let name = name.to_ascii_lowercase();
        if !NAMES.contains(&name.as_str()) {
            return Err(bad());
        }
        let value = |text: &str| match text {
            "-1" | "unlimited" => Some(u64::MAX),
            digits => digits.parse().ok(),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (value(soft).ok_or_else(bad)?, value(hard).ok_or_else(bad)?);
        if soft > hard {
            return Err(bad());
        }
        Ok(Self(Rlimit {
            kind: format!("RLIMIT_{}", name.to_ascii_uppercase()),
            soft,
            hard,
        }))
    }
}

/// A number of bytes: digits, a fraction if need be, and an optional `b`, `k`, `m`, `g` or `t` (powers of 1024).
///
/// # Errors
/// [`RequestError::Size`].
pub fn parse_size(s: &str) -> Result<i64, RequestError> {
    carrack_spec::parse_size(s)
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| RequestError::Size(s.to_owned()))
}

/// A number of processors in thousandths.
///
/// # Errors
/// [`RequestError::Cpus`].
pub fn parse_cpus(s: &str) -> Result<u32, RequestError> {
    let bad = || RequestError::Cpus(s.to_owned());
    let cpus: f64 = s.parse().map_err(|_| bad())?;
    if !(0.01..=4096.0).contains(&cpus) {
        return Err(bad());
    }
    Ok((cpus * 1000.0).round() as u32)
}

fn absolute(path: &str) -> Result<(), RequestError> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(RequestError::Relative(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let volume: Volume = "/a:/b:ro,z,rslave".parse().unwrap();
        assert_eq!(
            (volume.destination.as_str(), volume.options.len()),
            ("/b", 2)
        );
        assert!("./a:/b".parse::<Volume>().is_ok());
        for bad in [
            "",
            "/a",
            "name:/b",
            "/a:b",
            "/a:/b:odd",
            "/a:/b:ro:x",
            ":/b",
            "/a:",
            "/a:/b:shared",
        ] {
            assert!(bad.parse::<Volume>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_and_cpus() {
        for (text, bytes) in [
            ("1", 1),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2KiB", 2048),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for bad in ["", "m", "1x", "-1", "1..2m", "99999999999t", "."] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_cpus("1.5"), Ok(1500));
        for bad in ["0", "-1", "x", "NaN", "inf"] {
            assert!(parse_cpus(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn capabilities_and_ulimits() {
        assert_eq!("net_admin".parse(), Ok(Capability::One("CAP_NET_ADMIN")));
        assert_eq!("CAP_CHOWN".parse(), Ok(Capability::One("CAP_CHOWN")));
        assert_eq!("all".parse(), Ok(Capability::All));
        assert!("CAP_NONE".parse::<Capability>().is_err());
        let Ulimit(limit) = "nofile=10:-1".parse().unwrap();
        assert_eq!(
            (limit.kind.as_str(), limit.soft, limit.hard),
            ("RLIMIT_NOFILE", 10, u64::MAX)
        );
        for bad in ["nofile", "nofile=", "nofile=2:1", "odd=1", "nofile=-2"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?}");
        }
    }
}
