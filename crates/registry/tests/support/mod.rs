//! What several test files need: clients that do not wait long, and Debian's registry.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod server;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrack_registry::{Builder, Client, Retry, Timeouts};
use carrack_spec::Digest;
use carrack_testkit::Skip;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A client that gives up soon.
pub fn hasty() -> Builder {
    Client::builder()
        .files(Arc::new(|path: &Path| -> io::Result<Vec<u8>> {
            std::fs::read(path)
        }))
        .timeouts(Timeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            stall: Duration::from_millis(400),
        })
        .retry(Retry {
            attempts_max: 3,
            delay_first: Duration::from_millis(10),
            delay_max: Duration::from_millis(50),
            retry_after_max: Duration::from_secs(2),
        })
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// Bytes that do not repeat soon.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(length / 8 + 1)
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

/// Debian's docker-registry on a free port of the loopback, with its files in a
/// temporary directory; ended when dropped.
pub struct DockerRegistry {
    child: Child,
    pub host: String,
    pub folder: TempDir,
}

impl DockerRegistry {
    /// Starts it, with more lines for its configuration.
    pub fn start(more: &str) -> Result<Self, Skip> {
        let program = carrack_testkit::skip::program("docker-registry")?;
        let folder = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", free_port().unwrap());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {host}\n{more}",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            host,
            folder,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < end, "no registry on {}", registry.host);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
