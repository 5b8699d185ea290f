//! Asks name servers: UDP first, TCP when an answer is cut off.
//!
//! A question for IPv4 and one for IPv6 go out together on one socket that is
//! connected to the server, with a random port and random numbers; only answers to
//! exactly these questions count.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::{DnsError, ResolvConf};

/// Largest answer over UDP; larger ones are cut off and asked for over TCP.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Most addresses used of one answer.
const ADDRESSES_MAX: usize = 32;
/// Most aliases followed inside one answer.
const ALIASES_MAX: usize = 16;

/// What one server says of one name.
enum Answer {
    Found(Vec<IpAddr>, Duration),
    NoAddress,
    NotFound,
}

/// Why one server gave no answer that counts.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server answered {0:?}")]
    Code(RCODE),
    #[error("the server's answer is malformed")]
    Malformed,
}

/// The addresses of a name and how long they hold.
pub(super) fn look_up(
    config: &ResolvConf,
    name: &str,
) -> Result<(Vec<IpAddr>, Duration), DnsError> {
    let mut worst = DnsError::NotFound(name.to_owned());
    for candidate in config.candidates(name) {
        if Name::new(&candidate).is_err() {
            return Err(DnsError::Name(name.to_owned()));
        }
        match ask_all(config, &candidate)? {
            Answer::Found(addresses, ttl) => return Ok((addresses, ttl)),
            Answer::NoAddress => worst = DnsError::NoAddress(candidate),
            Answer::NotFound => {}
        }
    }
    Err(worst)
}

/// Asks every server in turn, as often as the configuration says.
fn ask_all(config: &ResolvConf, name: &str) -> Result<Answer, DnsError> {
    let mut last = String::new();
    for _ in 0..config.attempts {
        for server in &config.servers {
            match ask(*server, name, config.timeout) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = format!("{}: {error}", server.ip()),
            }
        }
    }
    let servers: Vec<String> = config.servers.iter().map(|s| s.ip().to_string()).collect();
    Err(DnsError::NoServer {
        name: name.to_owned(),
        servers: servers.join(", "),
        last,
    })
}

/// Asks one server for both families.
fn ask(server: SocketAddr, name: &str, wait: Duration) -> Result<Answer, ServerError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let first = fastrand::u16(..);
    let kinds = [(first, TYPE::A), (first.wrapping_add(1), TYPE::AAAA)];
    for (id, kind) in kinds {
        socket.send(&question(id, name, kind)?)?;
    }
    let mut answers: [Option<Answer>; 2] = [None, None];
    let end = Instant::now() + wait;
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    while answers.iter().any(Option::is_none) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // IPv4 alone is an answer: some servers drop questions for IPv6.
            if matches!(answers, [Some(Answer::Found(..)), None]) {
                break;
            }
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        socket.set_read_timeout(Some(left))?;
        let count = match socket.recv(&mut buffer) {
            Ok(count) => count,
            Err(e) if is_wait(&e) => continue,
            Err(e) => return Err(e.into()),
        };
        let Some(packet) = buffer.get(..count).and_then(|b| Packet::parse(b).ok()) else {
            continue;
        };
        let same = |(id, kind): &(u16, TYPE)| is_answer_to(&packet, *id, name, *kind);
        let Some(at) = kinds.iter().position(same) else {
            continue;
        };
        let (Some(slot), Some((id, kind))) = (answers.get_mut(at), kinds.get(at)) else {
            continue;
        };
        *slot = Some(if packet.has_flags(PacketFlag::TRUNCATION) {
            ask_by_tcp(server, *id, name, *kind, wait)?
        } else {
            read(&packet, name)?
        });
    }
    Ok(both(answers.into_iter().flatten()))
}

fn is_wait(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Joins the answers for both families.
fn both(answers: impl Iterator<Item = Answer>) -> Answer {
    answers
        .reduce(|a, b| match (a, b) {
            (Answer::Found(mut a, x), Answer::Found(b, y)) => {
                a.extend(b);
                a.truncate(ADDRESSES_MAX);
                Answer::Found(a, x.min(y))
            }
            (found @ Answer::Found(..), _) | (_, found @ Answer::Found(..)) => found,
            (Answer::NotFound, Answer::NotFound) => Answer::NotFound,
            _ => Answer::NoAddress,
        })
        .unwrap_or(Answer::NoAddress)
}

fn question(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, ServerError> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(|_| ServerError::Malformed)?;
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    packet
        .questions
        .push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().map_err(|_| ServerError::Malformed)
}

fn is_answer_to(packet: &Packet<'_>, id: u16, name: &str, kind: TYPE) -> bool {
    let question = packet.questions.first();
    packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && question.is_some_and(|q| {
            q.qtype == QTYPE::TYPE(kind) && q.qname.to_string().eq_ignore_ascii_case(name)
        })
}

fn ask_by_tcp(
    server: SocketAddr,
    id: u16,
    name: &str,
    kind: TYPE,
    wait: Duration,
) -> Result<Answer, ServerError> {
    let mut stream = TcpStream::connect_timeout(&server, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    let question = question(id, name, kind)?;
    let length = u16::try_from(question.len()).map_err(|_| ServerError::Malformed)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    let packet = Packet::parse(&answer).map_err(|_| ServerError::Malformed)?;
    match is_answer_to(&packet, id, name, kind) {
        true => read(&packet, name),
        false => Err(ServerError::Malformed),
    }
}

/// Addresses in an answer that belong to the name, aliases followed.
fn read(packet: &Packet<'_>, name: &str) -> Result<Answer, ServerError> {
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Answer::NotFound),
        other => return Err(ServerError::Code(other)),
    }
    let mut owner = name.to_ascii_lowercase();
    let mut ttl = u32::MAX;
    for _ in 0..ALIASES_MAX {
        let own = packet
            .answers
            .iter()
            .filter(|record| record.name.to_string().eq_ignore_ascii_case(&owner));
        let mut addresses = Vec::new();
        let mut alias = None;
        for record in own {
            match &record.rdata {
                RData::A(a) => addresses.push(IpAddr::from(Ipv4Addr::from_bits(a.address))),
                RData::AAAA(a) => addresses.push(IpAddr::from(Ipv6Addr::from_bits(a.address))),
                RData::CNAME(to) => alias = Some(to.0.to_string().to_ascii_lowercase()),
                _ => continue,
            }
            ttl = ttl.min(record.ttl);
        }
        if !addresses.is_empty() {
            addresses.truncate(ADDRESSES_MAX);
            return Ok(Answer::Found(addresses, Duration::from_secs(ttl.into())));
        }
        match alias {
            Some(to) => owner = to,
            None => break,
        }
    }
    Ok(Answer::NoAddress)
}
