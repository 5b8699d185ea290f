//! `/etc/hosts` and `/etc/resolv.conf` as values (hosts(5), resolv.conf(5)).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Most name servers asked, as in glibc.
const SERVERS_MAX: usize = 3;
/// Most search domains.
const SEARCH_MAX: usize = 16;

/// `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsFile(HashMap<String, Vec<IpAddr>>);

impl HostsFile {
    /// Parses the text; lines without an address are passed over.
    pub fn parse(text: &str) -> Self {
        let mut map: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else {
                continue;
            };
            for name in words {
                let addresses = map.entry(name.to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(map)
    }

    /// The addresses of a name in lower case.
    pub fn get(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.get(name).map(Vec::as_slice)
    }
}

/// `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// Servers in the order in which they are asked.
    pub servers: Vec<SocketAddr>,
    /// Domains that are tried behind short names.
    pub search: Vec<String>,
    /// Names with fewer dots are short.
    pub ndots: usize,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// How often all servers are asked.
    pub attempts: u32,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            servers: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53)],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl ResolvConf {
    /// Parses the text; what is not understood is passed over, as glibc does.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        let mut servers = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => {
                    let names = words.map(|name| name.trim_matches('.').to_owned());
                    let names = names.filter(|name| !name.is_empty());
                    config.search = names.take(SEARCH_MAX).collect();
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        servers.truncate(SERVERS_MAX);
        if !servers.is_empty() {
            config.servers = servers;
        }
        config
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u32>() else {
            return;
        };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5),
            _ => {}
        }
    }

    /// The full names to ask for, in order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let as_is = name.to_owned();
        if name.matches('.').count() >= self.ndots {
            std::iter::once(as_is).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(as_is)).collect()
        }
    }
}

/// A server's address; the scope of a link-local one (`%eth0`) must be a number.
fn server(word: &str) -> Option<SocketAddr> {
    let (address, scope) = word.split_once('%').unwrap_or((word, "0"));
    Some(match address.parse().ok()? {
        IpAddr::V6(v6) => {
            SocketAddr::V6(std::net::SocketAddrV6::new(v6, 53, 0, scope.parse().ok()?))
        }
        v4 => SocketAddr::new(v4, 53),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_servers_search_and_options() {
        let text = "# made by\nnameserver 10.0.0.1\nnameserver fe80::1%2\nnameserver bad\n\
                    search a.example. b.example\noptions ndots:2 timeout:1 attempts:99 rotate\n";
        let config = ResolvConf::parse(text);
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.search, ["a.example", "b.example"]);
        assert_eq!((config.ndots, config.attempts), (2, 5));
        assert_eq!(config.timeout, Duration::from_secs(1));
        let short = ["r.x.a.example", "r.x.b.example", "r.x"];
        assert_eq!(config.candidates("r.x"), short);
        let long = ["r.x.y", "r.x.y.a.example", "r.x.y.b.example"];
        assert_eq!(config.candidates("r.x.y"), long);
        assert_eq!(config.candidates("r.x."), ["r.x"]);
    }

    #[test]
    fn without_servers_the_local_one_is_asked() {
        assert_eq!(ResolvConf::parse("garbage"), ResolvConf::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z0-9:%#. \\n]{0,200}") {
            let _ = HostsFile::parse(&text);
            let _ = ResolvConf::parse(&text).candidates("a.b");
        }
    }
}
