//! A synchronous D-Bus connection to a service manager.
//!
//! ```text
//! connect ── \0AUTH EXTERNAL, DATA, BEGIN ◄── DATA, OK ──► Hello (not on a private socket)
//! call    ── message ──► … signals are kept aside … ──► its return or error
//! signal  ── one kept aside, or the next that comes
//! ```
//!
//! The identity is left to the socket's credentials (an empty `EXTERNAL`
//! response, as sd-bus does it), so it is right inside a user namespace as well.
//! Every wait ends after [`TIMEOUT`]. Addresses: for the system the bus, then
//! systemd's private socket (root, no bus daemon); for a user the session bus of
//! the environment, `$XDG_RUNTIME_DIR/bus`, then the manager's private socket.

use super::wire::{CALL, ERROR, HEADER_BYTES, Malformed, Message, RETURN, SIGNAL, Value};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest wait for one answer or one job.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Most signals kept aside while waiting for an answer.
const SIGNALS_MAX: usize = 4096;
/// Longest line of the authentication.
const AUTH_LINE_BYTES_MAX: usize = 1024;

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// What can go wrong between us and the service manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// No socket took the connection.
    #[error(
        "no service manager answers at {tried}; is systemd running (and, for a user, XDG_RUNTIME_DIR set)?"
    )]
    Connect {
        /// The addresses tried.
        tried: String,
        /// Why the last one failed.
        #[source]
        source: io::Error,
    },
    /// The other side did not accept us.
    #[error("the message bus refused the authentication: {answer}")]
    Refused {
        /// What it said.
        answer: String,
    },
    /// The connection broke.
    #[error("the connection to the message bus broke")]
    Broken(#[source] io::Error),
    /// Bytes that are no message.
    #[error("{reason}")]
    Malformed {
        /// What is wrong with them.
        reason: String,
    },
    /// A call was answered with an error.
    #[error("systemd refused {call}: {message} ({name})")]
    Call {
        /// The method.
        call: String,
        /// The error's name, `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// Its text.
        message: String,
    },
    /// A job ended otherwise than done.
    #[error("the job of {unit} ended as {result:?}; see `systemctl status {unit}`")]
    Job {
        /// The unit.
        unit: String,
        /// `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
        result: String,
    },
    /// Nothing came in time.
    #[error("systemd did not answer {call} within 30 seconds")]
    Timeout {
        /// What was asked.
        call: String,
    },
}

impl From<Malformed> for BusError {
    fn from(e: Malformed) -> Self {
        BusError::Malformed {
            reason: e.to_string(),
        }
    }
}

pub(crate) struct Bus {
    socket: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
    /// Behind a bus daemon, rather than on the manager's own socket.
    daemon: bool,
}

impl Bus {
    /// Connects to the system's or the user's service manager.
    pub fn connect(user: bool) -> Result<Bus, BusError> {
        let mut tried = Vec::new();
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (address, daemon) in addresses(user) {
            match UnixStream::connect_addr(&address) {
                Ok(socket) => return Bus::start(socket, daemon),
                Err(e) => last = e,
            }
            tried.push(format!("{address:?}"));
        }
        Err(BusError::Connect {
            tried: tried.join(", "),
            source: last,
        })
    }

    fn start(socket: UnixStream, daemon: bool) -> Result<Bus, BusError> {
        socket
            .set_read_timeout(Some(TIMEOUT))
            .and_then(|()| socket.set_write_timeout(Some(TIMEOUT)))
            .map_err(BusError::Broken)?;
        let mut bus = Bus {
            socket,
            serial: 0,
            signals: VecDeque::new(),
            daemon,
        };
        bus.authenticate()?;
        if daemon {
            let hello = bus.daemon_call("Hello", vec![]);
            bus.call(hello)?;
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<(), BusError> {
        // BEGIN goes ahead of its answer, as sd-bus sends it. A busy manager that read BEGIN and
        // the first call at once would keep the call in its buffer until more bytes come.
        let all = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
        self.socket.write_all(all).map_err(BusError::Broken)?;
        let mut answer = self.auth_line()?;
        if answer.starts_with("DATA") {
            answer = self.auth_line()?;
        }
        match answer.starts_with("OK") {
            true => Ok(()),
            false => Err(BusError::Refused { answer }),
        }
    }

    /// Byte by byte, as what follows the last line belongs to the messages.
    fn auth_line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.socket
                .read_exact(&mut byte)
                .map_err(BusError::Broken)?;
            line.extend(byte);
            if line.len() > AUTH_LINE_BYTES_MAX {
                return Err(Malformed("endless authentication").into());
            }
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    fn daemon_call(&self, member: &str, body: Vec<Value>) -> Message {
        Message {
            kind: CALL,
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: member.into(),
            destination: "org.freedesktop.DBus".into(),
            body,
            ..Default::default()
        }
    }

    /// Asks for the signals of jobs; before the job is made, so that none is missed.
    pub fn subscribe(&mut self) -> Result<(), BusError> {
        if !self.daemon {
            return Ok(()); // a private connection gets every signal
        }
        let rule = format!(
            "type='signal',sender='{DESTINATION}',path='{MANAGER_PATH}',interface='{MANAGER}',member='JobRemoved'"
        );
        let call = self.daemon_call("AddMatch", vec![Value::str(rule)]);
        self.call(call)?;
        self.manager("Subscribe", vec![]).map(drop)
    }

    /// Calls a method of the manager.
    pub fn manager(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, BusError> {
        let call = self.to_manager(MANAGER, member, body);
        self.call(call)
    }

    /// Reads a property of the manager.
    pub fn manager_property(&mut self, name: &str) -> Result<Value, BusError> {
        let body = vec![Value::str(MANAGER), Value::str(name)];
        let call = self.to_manager("org.freedesktop.DBus.Properties", "Get", body);
        let mut answer = self.call(call)?;
        match answer.pop() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(Malformed("a property is a variant").into()),
        }
    }

    fn to_manager(&self, interface: &str, member: &str, body: Vec<Value>) -> Message {
        Message {
            kind: CALL,
            path: MANAGER_PATH.into(),
            interface: interface.into(),
            member: member.into(),
            destination: if self.daemon {
                DESTINATION.into()
            } else {
                String::new()
            },
            body,
            ..Default::default()
        }
    }

    fn call(&mut self, mut message: Message) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        message.serial = self.serial;
        let bytes = message.encode();
        self.socket.write_all(&bytes).map_err(BusError::Broken)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            let answer = self.receive(&message.member, end)?;
            match answer.kind {
                RETURN if answer.reply_to == message.serial => return Ok(answer.body),
                ERROR if answer.reply_to == message.serial => {
                    return Err(BusError::Call {
                        call: message.member,
                        name: answer.error_name,
                        message: text_of(answer.body.first()),
                    });
                }
                SIGNAL if self.signals.len() < SIGNALS_MAX => self.signals.push_back(answer),
                _ => {}
            }
        }
    }

    /// Waits until the job that a call returned is done.
    pub fn wait_job(&mut self, unit: &str, job: &str) -> Result<(), BusError> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let signal = match self.signals.pop_front() {
                Some(signal) => signal,
                None => self.receive(&format!("the job of {unit}"), end)?,
            };
            if signal.kind != SIGNAL || signal.member != "JobRemoved" {
                continue;
            }
            // u id, o job, s unit, s result
            let [_, path, _, result, ..] = &signal.body[..] else {
                continue;
            };
            if path.as_str() != Some(job) {
                continue;
            }
            return match result.as_str() {
                Some("done") => Ok(()),
                other => Err(BusError::Job {
                    unit: unit.to_owned(),
                    result: other.unwrap_or_default().to_owned(),
                }),
            };
        }
    }

    fn receive(&mut self, what: &str, end: Instant) -> Result<Message, BusError> {
        let late = || BusError::Timeout {
            call: what.to_owned(),
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        self.socket
            .set_read_timeout(Some(left))
            .map_err(BusError::Broken)?;
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
            _ => BusError::Broken(e),
        };
        let mut header = [0u8; HEADER_BYTES];
        self.socket.read_exact(&mut header).map_err(failed)?;
        let mut bytes = header.to_vec();
        bytes.resize(Message::length(&header)?, 0);
        if let Some(rest) = bytes.get_mut(HEADER_BYTES..) {
            self.socket.read_exact(rest).map_err(failed)?;
        }
        Ok(Message::decode(&bytes)?)
    }
}

fn text_of(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Where to look, and whether a bus daemon listens there.
fn addresses(user: bool) -> Vec<(SocketAddr, bool)> {
    let variable = |name: &str| std::env::var(name).ok();
    let path = |p: PathBuf| SocketAddr::from_pathname(p).ok();
    let mut found = Vec::new();
    if !user {
        if let Some(address) = variable("DBUS_SYSTEM_BUS_ADDRESS") {
            found.extend(parse_address(&address).into_iter().map(|a| (a, true)));
        }
        found.extend(path("/run/dbus/system_bus_socket".into()).map(|a| (a, true)));
        found.extend(path("/run/systemd/private".into()).map(|a| (a, false)));
        return found;
    }
    if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
        found.extend(parse_address(&address).into_iter().map(|a| (a, true)));
    }
    let runtime = variable("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())),
        PathBuf::from,
    );
    found.extend(path(runtime.join("bus")).map(|a| (a, true)));
    found.extend(path(runtime.join("systemd/private")).map(|a| (a, false)));
    found
}

/// The unix sockets of a D-Bus address list; other transports are left out.
fn parse_address(text: &str) -> Vec<SocketAddr> {
    text.split(';')
        .filter_map(|one| one.strip_prefix("unix:"))
        .flat_map(|options| options.split(','))
        .filter_map(|option| {
            let (key, value) = option.split_once('=')?;
            let value = percent_decode(value)?;
            match key {
                "path" => SocketAddr::from_pathname(value).ok(),
                "abstract" => SocketAddr::from_abstract_name(value).ok(),
                _ => None,
            }
        })
        .collect()
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: u8| (b as char).to_digit(16);
        let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_environment_are_read() {
        let list = parse_address("tcp:host=x;unix:path=/run/a%20b,guid=1;unix:abstract=/tmp/x");
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].as_pathname().unwrap(), "/run/a b");
        assert!(parse_address("unix:path=%zz").is_empty());
    }

    /// A made-up service manager on the other end of a socket pair.
    fn serve(socket: UnixStream, answers: Vec<Message>) -> std::thread::JoinHandle<Vec<Message>> {
        std::thread::spawn(move || {
            let mut socket = socket;
            let mut seen = Vec::new();
            let line = |socket: &mut UnixStream| {
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n") {
                    let mut b = [0];
                    socket.read_exact(&mut b).unwrap();
                    text.extend(b);
                }
                text
            };
            assert_eq!(line(&mut socket), b"\0AUTH EXTERNAL\r\n");
            assert_eq!(line(&mut socket), b"DATA\r\n");
            // Never together with a call: this comes before any answer.
            assert_eq!(line(&mut socket), b"BEGIN\r\n");
            socket.write_all(b"DATA\r\nOK 1234\r\n").unwrap();
            for answer in answers {
                if answer.kind != SIGNAL {
                    let mut header = [0; HEADER_BYTES];
                    socket.read_exact(&mut header).unwrap();
                    let mut bytes = header.to_vec();
                    bytes.resize(Message::length(&header).unwrap(), 0);
                    socket.read_exact(&mut bytes[HEADER_BYTES..]).unwrap();
                    seen.push(Message::decode(&bytes).unwrap());
                }
                socket.write_all(&encode_answer(&answer)).unwrap();
            }
            seen
        })
    }

    /// `Message::encode` writes calls; an answer also has a serial to reply to and maybe an error.
    fn encode_answer(message: &Message) -> Vec<u8> {
        use super::super::wire::Writer;
        let mut body = Writer::default();
        message.body.iter().for_each(|v| body.value(v));
        let signature: String = message.body.iter().map(Value::signature).collect();
        let field = |code, value: Value| Value::Struct(vec![Value::Byte(code), value.variant()]);
        let mut fields = vec![field(8, Value::Signature(signature))];
        if message.kind == SIGNAL {
            fields.push(field(3, Value::str(&message.member)));
        } else {
            fields.push(field(5, Value::U32(message.reply_to)));
        }
        if message.kind == ERROR {
            fields.push(field(4, Value::str(&message.error_name)));
        }
        let mut out = Writer(vec![b'l', message.kind, 0, 1]);
        out.value(&Value::U32(body.0.len() as u32));
        out.value(&Value::U32(1));
        out.value(&Value::Array("(yv)".into(), fields));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    #[test]
    fn a_job_is_awaited_also_when_its_end_comes_before_the_answer() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let done = |job: &str, result: &str| Message {
            kind: SIGNAL,
            member: "JobRemoved".into(),
            body: vec![
                Value::U32(1),
                Value::Path(job.into()),
                Value::str("x.scope"),
                Value::str(result),
            ],
            ..Default::default()
        };
        let reply = |reply_to, job: &str| Message {
            kind: RETURN,
            reply_to,
            body: vec![Value::Path(job.into())],
            ..Default::default()
        };
        let server = serve(
            theirs,
            vec![
                done("/other", "failed"),
                done("/job/1", "done"),
                reply(1, "/job/1"),
                reply(2, "/job/2"),
                done("/job/2", "failed"),
            ],
        );
        let mut bus = Bus::start(ours, false).unwrap();
        bus.subscribe().unwrap();
        let body = bus
            .manager("StartTransientUnit", vec![Value::str("x.scope")])
            .unwrap();
        bus.wait_job("x.scope", body[0].as_str().unwrap()).unwrap();
        let body = bus
            .manager("StopUnit", vec![Value::str("x.scope")])
            .unwrap();
        let error = bus
            .wait_job("x.scope", body[0].as_str().unwrap())
            .unwrap_err();
        assert!(matches!(error, BusError::Job { result, .. } if result == "failed"));
        assert_eq!(server.join().unwrap()[0].member, "StartTransientUnit");
    }

    #[test]
    fn the_managers_own_socket_answers_many_connections_at_once() {
        let connect = || UnixStream::connect("/run/systemd/private");
        if let Err(error) = connect() {
            println!("SKIP many_connections_at_once: /run/systemd/private: {error}");
            return;
        }
        let ask = || {
            for _ in 0..5 {
                let mut bus = Bus::start(connect().unwrap(), false).unwrap();
                let version = bus.manager_property("Version").unwrap();
                assert!(version.as_str().is_some_and(|text| !text.is_empty()));
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(ask);
            }
        });
    }

    #[test]
    fn an_error_answer_carries_name_and_text() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let refusal = Message {
            kind: ERROR,
            reply_to: 1,
            error_name: "org.freedesktop.systemd1.UnitExists".into(),
            body: vec![Value::str("it is there")],
            ..Default::default()
        };
        let server = serve(theirs, vec![refusal]);
        let error = Bus::start(ours, false)
            .unwrap()
            .manager("X", vec![])
            .unwrap_err();
        assert!(
            error.to_string().contains("UnitExists") && error.to_string().contains("it is there")
        );
        server.join().unwrap();
    }
}
