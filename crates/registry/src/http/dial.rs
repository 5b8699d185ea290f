//! Opens connections: addresses in turn, through a proxy where one is configured, TLS.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::pool::{Connection, Key, Stream};
use super::socks::{self, SocksError};
use super::{HEAD_BYTES_MAX, Http, HttpError, io_error};
use crate::proxy::Proxy;
use crate::tls::TlsSettings;
use crate::url::Url;

/// Least time that one address of several gets.
const ADDRESS_WAIT_MIN: Duration = Duration::from_secs(2);

impl Http {
    /// The key under which connections for `url` are pooled, and the proxy they use.
    pub(super) fn route(&self, url: &Url, tls: &TlsSettings) -> (Key, Option<&Proxy>) {
        let proxy = self.proxies.for_url(url);
        let shared = proxy.filter(|proxy| !url.https() && proxy.takes_requests());
        let key = Key {
            https: url.https(),
            // Plain requests through a proxy all go to the proxy.
            host: shared.map_or(url.host(), |_| "").to_owned(),
            port: shared.map_or(url.port(), |_| 0),
            tls: url.https().then(|| tls.clone()),
            proxy: proxy.map(Proxy::identity),
        };
        (key, proxy)
    }

    /// A new connection for `url`.
    pub(super) fn dial(
        &self,
        url: &Url,
        tls: &TlsSettings,
        key: Key,
        proxy: Option<&Proxy>,
    ) -> Result<Connection, HttpError> {
        let mut stream = match proxy {
            None => self.reach(url.host(), url.port())?,
            Some(proxy) => self.reach_proxy(proxy)?,
        };
        match proxy {
            Some(proxy) if !proxy.takes_requests() => self.socks(&mut stream, url, proxy)?,
            Some(proxy) if url.https() => self.tunnel(&mut stream, url, proxy)?,
            _ => {}
        }
        if url.https() {
            let config = self.tls.get(tls).map_err(HttpError::TlsSettings)?;
            stream = self.handshake(stream, config, url.host())?;
        }
        Ok(Connection::new(key, stream))
    }

    /// A TCP connection to one of the host's addresses.
    fn reach(&self, host: &str, port: u16) -> Result<Stream, HttpError> {
        let addresses = self.resolver.resolve(host).map_err(HttpError::Resolve)?;
        let end = Instant::now() + self.timeouts.connect;
        let mut last = HttpError::Connect {
            address: format!("{host}:{port}"),
            source: io::Error::new(io::ErrorKind::NotFound, "the host has no address"),
        };
        let addresses = alternate(addresses);
        for (at, address) in addresses.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let waiting = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let wait = (left / waiting).max(ADDRESS_WAIT_MIN.min(self.timeouts.connect));
            let address = SocketAddr::new(*address, port);
            match TcpStream::connect_timeout(&address, wait) {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(HttpError::Io)?;
                    return Ok(Stream::Plain(socket));
                }
                Err(source) => {
                    let address = format!("{host} ({address})");
                    last = HttpError::Connect { address, source };
                }
            }
        }
        Err(last)
    }

    fn reach_proxy(&self, proxy: &Proxy) -> Result<Stream, HttpError> {
        let url = proxy.url();
        let stream = self.reach(url.host(), url.port())?;
        if !url.https() {
            return Ok(stream);
        }
        let config = self.tls.get(&TlsSettings::default());
        let config = config.map_err(HttpError::TlsSettings)?;
        self.handshake(stream, config, url.host())
    }

    /// Asks an HTTP proxy for a tunnel to the host of `url`.
    fn tunnel(&self, stream: &mut Stream, url: &Url, proxy: &Proxy) -> Result<(), HttpError> {
        let wait = self.timeouts.connect;
        set_waits(stream, wait)?;
        let to = format!("{}:{}", bracketed(url.host()), url.port());
        let mut head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        head.push_str(&format!("User-Agent: {}\r\n", self.user_agent));
        if let Some(value) = proxy.authorization() {
            head.push_str(&format!("Proxy-Authorization: {value}\r\n"));
        }
        head.push_str("\r\n");
        let broken = |e| io_error(e, wait);
        stream.write_all(head.as_bytes()).map_err(broken)?;
        let answer = read_tunnel_head(stream, wait)?;
        let first = answer.lines().next().unwrap_or_default();
        match first.split_ascii_whitespace().nth(1) {
            Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
            _ => Err(HttpError::Proxy {
                proxy: proxy.to_string(),
                reason: first.chars().take(120).collect(),
            }),
        }
    }

    /// Asks a SOCKS proxy for a connection to the host of `url`.
    fn socks(&self, stream: &mut Stream, url: &Url, proxy: &Proxy) -> Result<(), HttpError> {
        let wait = self.timeouts.connect;
        set_waits(stream, wait)?;
        let connected = socks::connect(stream, url.host(), url.port(), proxy.login());
        connected.map_err(|error| match error {
            SocksError::Io(error) => io_error(error, wait),
            SocksError::Refused(reason) => HttpError::Proxy {
                proxy: proxy.to_string(),
                reason,
            },
        })
    }

    fn handshake(
        &self,
        stream: Stream,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<Stream, HttpError> {
        let failed = |source: io::Error| HttpError::Handshake {
            host: host.to_owned(),
            source,
        };
        let invalid = |e| failed(io::Error::new(io::ErrorKind::InvalidData, e));
        let name = ServerName::try_from(host.to_owned())
            .map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        let connection = ClientConnection::new(config, name).map_err(invalid)?;
        set_waits(&stream, self.timeouts.connect)?;
        let mut tls = StreamOwned::new(connection, stream);
        let end = Instant::now() + self.timeouts.connect;
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).map_err(failed)?;
            if Instant::now() > end {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
        }
        Ok(Stream::Tls(Box::new(tls)))
    }
}

fn set_waits(stream: &Stream, wait: Duration) -> Result<(), HttpError> {
    let socket = stream.socket();
    socket
        .set_read_timeout(Some(wait))
        .and_then(|()| socket.set_write_timeout(Some(wait)))
        .map_err(HttpError::Io)
}

/// The head of a proxy's answer, byte by byte: what follows it belongs to the tunnel.
fn read_tunnel_head(stream: &mut Stream, wait: Duration) -> Result<String, HttpError> {
    use std::io::Read;
    let end = Instant::now() + wait;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(HttpError::HeadTooLong);
        }
        if Instant::now() > end {
            return Err(HttpError::Stalled(wait));
        }
        match stream.read(&mut byte) {
            Ok(0) => return Err(HttpError::Closed),
            Ok(_) => head.extend(byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error(e, wait)),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A host with the brackets that IPv6 needs before a port.
fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// Takes families in turn, so that one dead family costs one wait.
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let Some(first) = addresses.first().copied() else {
        return addresses;
    };
    let (same, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = other.into_iter();
    let mut order = Vec::new();
    for address in same {
        order.push(address);
        order.extend(other.next());
    }
    order.extend(other);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let order = alternate(vec![ip("::1"), ip("::2"), ip("1.1.1.1"), ip("::3")]);
        assert_eq!(order, [ip("::1"), ip("1.1.1.1"), ip("::2"), ip("::3")]);
    }
}
