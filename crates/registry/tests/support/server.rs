//! An HTTP server of the tests that does what it is told, right or wrong.
//!
//! Each request goes to a closure; what comes back is written as it is. All requests
//! are kept. A connection that begins with a TLS handshake is closed, unless the server
//! has a certificate. Threads end with the process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self
            .fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the connection is closed.
    Close(Vec<u8>),
    /// These bytes, then nothing for a long time.
    Stall(Vec<u8>),
    /// These bytes, then that chunk again and again until the client has enough.
    Endless(Vec<u8>, Vec<u8>),
}

/// An answer with a length and more fields, one a line.
pub fn answer(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = head(status, &format!("Content-Length: {}\n{fields}", body.len()));
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A head with these fields, one a line.
pub fn head(status: u16, fields: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\n");
    for line in fields
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        text.push_str(&format!("{line}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Decides what happens; the number counts requests from zero.
type Handler = dyn Fn(&Request, usize) -> Reply + Send + Sync;

pub struct Server {
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_tls(None, handler)
    }

    pub fn with_tls(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            host: listener.local_addr().unwrap().to_string(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let handler: Arc<Handler> = Arc::new(handler);
        let requests = Arc::clone(&server.requests);
        let connections = Arc::clone(&server.connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, requests) = (Arc::clone(&handler), Arc::clone(&requests));
                let (connections, tls) = (Arc::clone(&connections), tls.clone());
                std::thread::spawn(move || {
                    let mut first = [0];
                    let hello = stream.peek(&mut first).is_ok() && first == [0x16];
                    let stream: Box<dyn Duplex> = match tls {
                        None if hello => return,
                        None => Box::new(stream),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            Box::new(StreamOwned::new(connection, stream))
                        }
                    };
                    connections.fetch_add(1, Ordering::SeqCst);
                    serve(BufReader::new(stream), &*handler, &requests);
                });
            }
        });
        server
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Connections that were opened (handshakes in vain not counted).
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Its port.
    pub fn port(&self) -> &str {
        self.host.split(':').nth(1).unwrap()
    }
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

fn serve(mut stream: BufReader<Box<dyn Duplex>>, handler: &Handler, kept: &Mutex<Vec<Request>>) {
    while let Some(request) = read_request(&mut stream) {
        let number = {
            let mut kept = kept.lock().unwrap();
            kept.push(request.clone());
            kept.len() - 1
        };
        let out = stream.get_mut();
        let sent = match handler(&request, number) {
            Reply::Bytes(bytes) => out.write_all(&bytes),
            Reply::Close(bytes) => {
                let _ = out.write_all(&bytes).and_then(|()| out.flush());
                return;
            }
            Reply::Stall(bytes) => {
                let _ = out.write_all(&bytes).and_then(|()| out.flush());
                std::thread::sleep(Duration::from_secs(20));
                return;
            }
            Reply::Endless(bytes, chunk) => {
                let mut sent = out.write_all(&bytes);
                while sent.is_ok() {
                    sent = out.write_all(&chunk);
                }
                sent
            }
        };
        if sent.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn read_request(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_ascii_whitespace();
    let mut request = Request {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .fields
            .push((name.to_owned(), value.trim().to_owned()));
    }
    let length = request
        .field("content-length")
        .map_or(0, |n| n.parse().unwrap());
    // A client that stops half-way leaves what it sent.
    let mut body = stream.take(length);
    let _ = body.read_to_end(&mut request.body);
    Some(request)
}
