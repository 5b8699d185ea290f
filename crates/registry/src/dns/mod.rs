//! Host names to addresses, without `getaddrinfo`.
//!
//! The programs are static, and glibc's resolver loads plug-ins at run time, which a
//! static program cannot; so this is a resolver of our own: `/etc/hosts`, then DNS
//! as `/etc/resolv.conf` says. Nothing else (no multicast, no directory services).
//!
//! Contract
//! - Addresses written as such, `localhost` and names below it need no file and no network.
//! - The files are read at each look-up that the cache does not answer: they change
//!   when a machine changes its network. Answers are kept for their time to live, a
//!   minute at most.
//! - Every wait is limited by `timeout` and `attempts` of `resolv.conf`.

mod config;
mod query;

pub use config::{HostsFile, ResolvConf};

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::tls::Files;

/// Longest time that an answer is kept.
const KEEP_MAX: Duration = Duration::from_secs(60);

/// Turns a host name into addresses, best first.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, which may be written as an address itself.
    ///
    /// # Errors
    /// [`DnsError`] says why there is none.
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DnsError>;
}

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DnsError {
    /// The name cannot be asked for.
    #[error("{0:?} is no host name")]
    Name(String),
    /// All servers say that there is no such name.
    #[error("there is no host {0}; look for a typing mistake")]
    NotFound(String),
    /// The name exists and has no address.
    #[error("the host {0} has no address")]
    NoAddress(String),
    /// No server gave an answer.
    #[error("no name server answered for {name} (asked: {servers}; last: {last})")]
    NoServer {
        /// The name.
        name: String,
        /// The servers of `resolv.conf`.
        servers: String,
        /// The last thing that went wrong.
        last: String,
    },
}

impl DnsError {
    /// Whether a new try may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NoServer { .. })
    }
}

/// The machine's resolver.
pub struct SystemResolver {
    files: Arc<dyn Files>,
    kept: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

impl SystemResolver {
    /// A resolver over the machine's files, read through `files`.
    pub fn new(files: Arc<dyn Files>) -> Self {
        Self {
            files,
            kept: Mutex::default(),
        }
    }

    fn text(&self, path: &str) -> String {
        let bytes = self.files.read(Path::new(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if let Some(addresses) = without_network(host) {
            return Ok(addresses);
        }
        let name = host.to_ascii_lowercase();
        if let Some((until, addresses)) = crate::locked(&self.kept).get(&name)
            && Instant::now() < *until
        {
            return Ok(addresses.clone());
        }
        let hosts = HostsFile::parse(&self.text("/etc/hosts"));
        if let Some(addresses) = hosts.get(&name) {
            return Ok(addresses.to_vec());
        }
        let config = ResolvConf::parse(&self.text("/etc/resolv.conf"));
        let (addresses, ttl) = query::look_up(&config, &name)?;
        let until = Instant::now() + ttl.min(KEEP_MAX);
        crate::locked(&self.kept).insert(name, (until, addresses.clone()));
        Ok(addresses)
    }
}

/// Addresses of what needs neither files nor servers.
fn without_network(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Some(vec![address]);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (name == "localhost" || name.ends_with(".localhost"))
        .then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn loopback_names_work_on_a_machine_without_files() {
        let files = |_: &Path| -> io::Result<Vec<u8>> { Err(io::ErrorKind::NotFound.into()) };
        let resolver = SystemResolver::new(Arc::new(files));
        for host in ["localhost", "registry.LOCALHOST.", "127.0.0.1", "::1"] {
            let addresses = resolver.resolve(host).unwrap();
            assert!(addresses.iter().all(IpAddr::is_loopback), "{host}");
        }
    }

    #[test]
    fn the_hosts_file_comes_before_servers() {
        let files = |path: &Path| -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/hosts") => Ok(b"10.0.0.9 Registry.Example reg # x\n".to_vec()),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        };
        let resolver = SystemResolver::new(Arc::new(files));
        let wanted: Vec<IpAddr> = vec!["10.0.0.9".parse().unwrap()];
        assert_eq!(resolver.resolve("registry.example").unwrap(), wanted);
    }
}
