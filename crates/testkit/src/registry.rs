//! Debian's docker-registry on the loopback.

use crate::skip::{self, Skip};
use crate::temp::TempDir;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for it to listen.
const START_SECONDS_MAX: u64 = 20;

/// A registry on a free port, with its files in a temporary directory; ended when dropped.
pub struct DockerRegistry {
    child: Child,
    /// Host and port.
    pub host: String,
    folder: TempDir,
}

impl DockerRegistry {
    /// Starts it, with more lines for its configuration.
    ///
    /// # Errors
    /// It is not installed.
    pub fn start(more: &str) -> Result<Self, Skip> {
        let program = skip::program("docker-registry")?;
        let folder = TempDir::new();
        let host = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {host}\n{more}",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("write the registry's configuration");
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let registry = Self {
            child,
            host,
            folder,
        };
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < end, "no registry on {}", registry.host);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// The directory of a repository, which need not exist.
    pub fn repository(&self, name: &str) -> PathBuf {
        let repositories = "data/docker/registry/v2/repositories";
        self.folder.path().join(repositories).join(name)
    }

    /// The file that holds a blob, by its digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let start = hex.get(..2).unwrap_or_default();
        let blobs = "data/docker/registry/v2/blobs/sha256";
        self.folder
            .path()
            .join(blobs)
            .join(start)
            .join(hex)
            .join("data")
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind to the loopback");
    listener.local_addr().expect("a bound address").port()
}
