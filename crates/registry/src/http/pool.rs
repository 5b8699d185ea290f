//! Idle connections by where they lead.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::{IDLE_AGE_MAX, IDLE_MAX};
use crate::tls::TlsSettings;

/// What two requests must have in common to share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) proxy: Option<String>,
}

/// A plain or encrypted stream; TLS may run within TLS behind an `https` proxy.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, Stream>>),
}

impl Stream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.sock.socket(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A connection with the bytes that were read too far.
pub(crate) struct Connection {
    pub(crate) key: Key,
    pub(crate) stream: Stream,
    /// Bytes that arrived and are not used yet: `ahead[at..]`.
    pub(crate) ahead: Vec<u8>,
    pub(crate) at: usize,
    /// Whether it served a request before.
    pub(crate) used: bool,
    wait: Option<Duration>,
}

impl Connection {
    pub(crate) fn new(key: Key, stream: Stream) -> Self {
        Self {
            key,
            stream,
            ahead: Vec::new(),
            at: 0,
            used: false,
            wait: None,
        }
    }

    /// Limits how long a single read or write waits.
    pub(crate) fn set_wait(&mut self, wait: Duration) -> io::Result<()> {
        let wait = wait.max(Duration::from_millis(1));
        if self.wait != Some(wait) {
            self.stream.socket().set_read_timeout(Some(wait))?;
            self.stream.socket().set_write_timeout(Some(wait))?;
            self.wait = Some(wait);
        }
        Ok(())
    }

    /// Bytes that arrived already.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.ahead.get(self.at..).unwrap_or_default()
    }

    /// Marks `count` buffered bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.ahead.len() {
            self.ahead.clear();
            self.at = 0;
        }
    }

    /// Reads more bytes behind the buffered ones; zero at the end.
    pub(crate) fn fill(&mut self, most: usize) -> io::Result<usize> {
        self.ahead.drain(..self.at);
        self.at = 0;
        let from = self.ahead.len();
        self.ahead.resize(from + most, 0);
        let count = read_some(
            &mut self.stream,
            self.ahead.get_mut(from..).unwrap_or_default(),
        );
        self.ahead.truncate(from + *count.as_ref().unwrap_or(&0));
        count
    }

    /// Reads into `buffer`: what is buffered first, else straight from the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let buffered = self.buffered();
        if buffered.is_empty() {
            return read_some(&mut self.stream, buffer);
        }
        let count = buffered.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), buffered.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }

    /// Whether the connection is quiet and open: nothing to read, no end.
    fn is_idle(&self) -> bool {
        let socket = self.stream.socket();
        if !self.buffered().is_empty() || socket.set_nonblocking(true).is_err() {
            return false;
        }
        let quiet = matches!(socket.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        socket.set_nonblocking(false).is_ok() && quiet
    }
}

/// A read that a signal does not end.
fn read_some(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Idle connections.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Key, Vec<(Instant, Connection)>>>,
}

impl Pool {
    /// The youngest idle connection to there that still works.
    pub(crate) fn take(&self, key: &Key) -> Option<Connection> {
        loop {
            let (since, connection) = crate::locked(&self.idle).get_mut(key)?.pop()?;
            if since.elapsed() < IDLE_AGE_MAX && connection.is_idle() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn put(&self, mut connection: Connection) {
        connection.used = true;
        let mut idle = crate::locked(&self.idle);
        let list = idle.entry(connection.key.clone()).or_default();
        list.push((Instant::now(), connection));
        if list.len() > IDLE_MAX {
            list.remove(0);
        }
    }
}
