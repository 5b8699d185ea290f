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

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};
    use std::net::TcpListener;

    /// What the name server of a test says: the name's records, or a code.
    type Zone = fn(&str, QTYPE) -> Result<Vec<ResourceRecord<'static>>, RCODE>;

    fn record(name: &'static str, data: RData<'static>) -> ResourceRecord<'static> {
        ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 300, data)
    }

    fn reply(question: &[u8], zone: Zone, cut: bool) -> Vec<u8> {
        let question = Packet::parse(question).unwrap();
        let asked = question.questions.first().unwrap();
        let found = zone(&asked.qname.to_string(), asked.qtype);
        let mut packet = Packet::new_reply(question.id());
        packet.questions.push(asked.clone());
        match found {
            _ if cut => packet.set_flags(PacketFlag::TRUNCATION),
            Ok(records) => packet.answers = records,
            Err(code) => *packet.rcode_mut() = code,
        }
        packet.build_bytes_vec().unwrap()
    }

    /// A name server on one port of UDP and TCP; `cut` cuts the answers over UDP off.
    fn serve(zone: Zone, cut: bool) -> ResolvConf {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok((count, from)) = udp.recv_from(&mut buffer) {
                // Noise and answers to other questions come first, and must not count.
                udp.send_to(b"noise", from).unwrap();
                let mut wrong = reply(&buffer[..count], zone, false);
                wrong[0] ^= 0x55;
                udp.send_to(&wrong, from).unwrap();
                let right = reply(&buffer[..count], zone, cut);
                udp.send_to(&right, from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                let answer = reply(&question, zone, false);
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
        ResolvConf {
            servers: vec![address],
            search: vec!["lan.example".to_owned()],
            timeout: Duration::from_millis(500),
            attempts: 2,
            ..ResolvConf::default()
        }
    }

    fn addresses(name: &str, kind: QTYPE) -> Result<Vec<ResourceRecord<'static>>, RCODE> {
        let v4 = RData::A(A::from(Ipv4Addr::new(10, 0, 0, 7)));
        let v6 = RData::AAAA(AAAA::from(Ipv6Addr::LOCALHOST));
        let alias = record(
            "r.example",
            RData::CNAME(CNAME(Name::new_unchecked("cdn.example"))),
        );
        match (name, kind) {
            ("short.lan.example", QTYPE::TYPE(TYPE::A)) => {
                Ok(vec![record("short.lan.example", v4)])
            }
            ("r.example", QTYPE::TYPE(TYPE::A)) => Ok(vec![alias, record("cdn.example", v4)]),
            ("r.example", _) => Ok(vec![
                alias,
                record("cdn.example", v6),
                record(
                    "other.example",
                    RData::AAAA(AAAA::from(Ipv6Addr::UNSPECIFIED)),
                ),
            ]),
            ("short.lan.example" | "empty.example", _) => Ok(Vec::new()),
            ("sick.example", _) => Err(RCODE::ServerFailure),
            _ => Err(RCODE::NameError),
        }
    }

    #[test]
    fn names_are_found_over_udp_and_tcp() {
        for cut in [false, true] {
            let config = serve(addresses, cut);
            let (found, ttl) = look_up(&config, "r.example").unwrap();
            let wanted: [IpAddr; 2] = ["10.0.0.7".parse().unwrap(), "::1".parse().unwrap()];
            assert_eq!((found.as_slice(), ttl.as_secs()), (&wanted[..], 300));
            let (found, _) = look_up(&config, "short").unwrap();
            assert_eq!(found, wanted[..1]);
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let config = serve(addresses, false);
        let error = |name: &str| look_up(&config, name).unwrap_err();
        assert!(matches!(error("nowhere.example"), DnsError::NotFound(_)));
        assert!(matches!(error("empty.example"), DnsError::NoAddress(_)));
        let sick = error("sick.example");
        assert!(
            sick.is_transient() && sick.to_string().contains("ServerFailure"),
            "{sick}"
        );
        assert!(matches!(error(&"a".repeat(300)), DnsError::Name(_)));
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = ResolvConf {
            servers: vec![silent.local_addr().unwrap()],
            timeout: Duration::from_millis(50),
            attempts: 2,
            ..ResolvConf::default()
        };
        let begun = Instant::now();
        assert!(look_up(&config, "r.example").unwrap_err().is_transient());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
