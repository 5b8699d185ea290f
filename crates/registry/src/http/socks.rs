//! Asks a SOCKS 5 proxy for a connection (RFC 1928), with a user name and a password where it wants
//! them (RFC 1929).
//!
//! Names of hosts go to the proxy as they are: it resolves them, so what only it can reach is reached.

use std::io::{self, Read, Write};
use std::net::IpAddr;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const ADDRESS_V4: u8 = 1;
const NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum SocksError {
    /// The proxy said no.
    Refused(String),
    /// The stream to the proxy failed.
    Io(io::Error),
}

impl From<io::Error> for SocksError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Makes `stream`, fresh from the proxy, one to `host` and `port`. At most 255 bytes of a name, a user
/// or a password can be sent.
pub(super) fn connect(
    stream: &mut (impl Read + Write),
    host: &str,
    port: u16,
    login: Option<(&[u8], &[u8])>,
) -> Result<(), SocksError> {
    let method = if login.is_some() { LOGIN } else { NO_LOGIN };
    let hello: &[u8] = match login {
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
        None => &[VERSION, 1, NO_LOGIN],
    };
    stream.write_all(hello)?;
    match (read(stream)?, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, chosen], Some((user, password))) if chosen == method => {
            let mut words = vec![LOGIN_VERSION];
            push(&mut words, user)?;
            push(&mut words, password)?;
            stream.write_all(&words)?;
            let [_, status] = read(stream)?;
            if status != 0 {
                return Err(refused("wrong user or password"));
            }
        }
        ([VERSION, _], None) => return Err(refused("it wants a user and a password")),
        ([VERSION, _], Some(_)) => return Err(refused("no way to log in that both know")),
        _ => return Err(refused("it does not speak SOCKS 5")),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(ADDRESS_V4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(ADDRESS_V6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(NAME);
            push(&mut request, host.as_bytes())?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request)?;
    let [_, status, _, kind] = read(stream)?;
    if status != 0 {
        return Err(refused(meaning(status)));
    }
    // The address that the proxy connects from, and its port.
    let bytes = match kind {
        ADDRESS_V4 => 4,
        ADDRESS_V6 => 16,
        NAME => {
            let [length] = read(stream)?;
            u64::from(length)
        }
        _ => return Err(refused("its answer is not to be understood")),
    } + 2;
    let copied = io::copy(&mut stream.take(bytes), &mut io::sink())?;
    match copied == bytes {
        true => Ok(()),
        false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn read<const N: usize>(stream: &mut impl Read) -> Result<[u8; N], SocksError> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The length, and the bytes.
fn push(to: &mut Vec<u8>, bytes: &[u8]) -> Result<(), SocksError> {
    let length =
        u8::try_from(bytes.len()).map_err(|_| refused("a name is longer than 255 bytes"))?;
    to.push(length);
    to.extend(bytes);
    Ok(())
}

fn refused(reason: &str) -> SocksError {
    SocksError::Refused(reason.to_owned())
}

fn meaning(status: u8) -> &'static str {
    match status {
        1 => "general failure",
        2 => "its rules do not allow the connection",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "the packet's time to live expired",
        7 => "it does not know the command",
        8 => "it does not know this type of address",
        _ => "an answer that is not to be understood",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the proxy says, and what it was told.
    struct Talk(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Talk {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Talk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn talk(
        says: &[u8],
        host: &str,
        login: Option<(&[u8], &[u8])>,
    ) -> (Result<(), String>, Vec<u8>, u64) {
        let mut talk = Talk(io::Cursor::new(says.to_vec()), Vec::new());
        let result = connect(&mut talk, host, 443, login).map_err(|error| match error {
            SocksError::Refused(reason) => reason,
            SocksError::Io(error) => error.kind().to_string(),
        });
        (result, talk.1, talk.0.position())
    }

    #[test]
    fn names_and_addresses_are_asked_for() {
        let says = [5, 0, 5, 0, 0, 1, 1, 2, 3, 4, 0, 9, 77];
        let (result, told, read) = talk(&says, "ab", None);
        assert_eq!(result, Ok(()));
        assert_eq!(told, [5, 1, 0, 5, 1, 0, 3, 2, b'a', b'b', 1, 187]);
        assert_eq!(read, 12, "what follows is the connection's");
        let (_, told, _) = talk(&says, "10.0.0.7", None);
        assert_eq!(told[3..], [5, 1, 0, 1, 10, 0, 0, 7, 1, 187]);
        let (_, told, _) = talk(&says, "::1", None);
        assert_eq!(told[6], 4);
        assert_eq!(told.len(), 3 + 4 + 16 + 2);
    }

    #[test]
    fn a_login_is_given_when_it_is_asked_for() {
        let login = Some((&b"me"[..], &b"pw"[..]));
        let says = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 9];
        let (result, told, _) = talk(&says, "a", login);
        assert_eq!(result, Ok(()));
        assert_eq!(told[..11], [5, 2, 0, 2, 1, 2, b'm', b'e', 2, b'p', b'w']);
        let wrong = talk(&[5, 2, 1, 1], "a", login).0;
        assert_eq!(wrong.unwrap_err(), "wrong user or password");
        let wanted = talk(&[5, 0xff], "a", None).0;
        assert_eq!(wanted.unwrap_err(), "it wants a user and a password");
    }

    #[test]
    fn whatever_a_proxy_says_is_an_error_or_a_connection() {
        assert_eq!(
            talk(&[5, 0, 5, 5, 0, 1], "a", None).0.unwrap_err(),
            "connection refused"
        );
        assert_eq!(
            talk(b"HTTP/1.1 400", "a", None).0.unwrap_err(),
            "it does not speak SOCKS 5"
        );
        for length in 0..11 {
            let says = [5, 0, 5, 0, 0, 1, 1, 2, 3, 4, 0, 9];
            assert!(talk(&says[..length], "a", None).0.is_err(), "{length}");
        }
        assert!(talk(&[5, 0], &"a".repeat(256), None).0.is_err());
    }
}
