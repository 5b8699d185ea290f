//! TLS with a made-up authority, and proxies.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use carrack_registry::{
    Client, Error, HostsToml, HttpError, Proxies, RegistriesConfig, Repository, TlsSettings,
};
use carrack_spec::Reference;
use carrack_spec::image::Descriptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use support::server::{Reply, Request, Server, answer};
use support::{digest, hasty};
use tempfile::TempDir;

/// An authority with the certificates of a server and of a client, as files.
struct Authority {
    folder: TempDir,
    server: Arc<ServerConfig>,
    strict: Arc<ServerConfig>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            (
                params.signed_by(&key, &issuer).unwrap().pem(),
                key.serialize_pem(),
            )
        };
        let (certificate, key) = issue(&["localhost", "127.0.0.1", "registry.example"]);
        let (client, client_key) = issue(&["client"]);
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("ca.crt", issuer.pem()),
            ("client.cert", client),
            ("client.key", client_key),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let chain = || vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let secret = || PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
        };
        let server = builder()
            .with_no_client_auth()
            .with_single_cert(chain(), secret());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap())
            .unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let strict = builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(), secret());
        Self {
            folder,
            server: Arc::new(server.unwrap()),
            strict: Arc::new(strict.unwrap()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tls(&self) -> TlsSettings {
        TlsSettings {
            ca: vec![self.file("ca.crt")],
            ..TlsSettings::default()
        }
    }

    fn start(&self) -> Server {
        Server::with_tls(Some(Arc::clone(&self.server)), |_, _| hello())
    }
}

fn hello() -> Reply {
    answer(200, "", b"hello")
}

fn blob() -> Descriptor {
    Descriptor::new("x", digest(b"hello"), 5)
}

/// A client that speaks only TLS to `host`, with these settings.
fn client(host: &str, tls: TlsSettings) -> Client {
    let mut config = RegistriesConfig::default();
    let text = format!("server = \"https://{host}\"");
    config.add_hosts_toml(host, HostsToml::parse(&text, "/".as_ref()).unwrap());
    config.add_tls(host, tls);
    hasty().config(config).build()
}

fn repository(client: &Client, host: &str) -> Repository {
    let reference: Reference = format!("{host}/app").parse().unwrap();
    client.repository(&reference).unwrap()
}

fn pull(client: &Client, host: &str) -> Result<String, Error> {
    let mut text = String::new();
    let mut blob = repository(client, host).blob(&blob())?;
    blob.read_to_string(&mut text)
        .map_err(|e| e.downcast::<Error>().unwrap())?;
    Ok(text)
}

fn is_handshake(error: &Error) -> bool {
    matches!(
        error,
        Error::Http {
            source: HttpError::Handshake { .. },
            ..
        }
    )
}

#[test]
fn a_registrys_own_authority_is_believed_when_configured() {
    let authority = Authority::new();
    let server = authority.start();
    for host in [server.host.clone(), format!("localhost:{}", server.port())] {
        assert_eq!(
            pull(&client(&host, authority.tls()), &host).unwrap(),
            "hello"
        );
        let error = pull(&client(&host, TlsSettings::default()), &host).unwrap_err();
        assert!(is_handshake(&error), "{error:?}");
        assert!(error.hint().unwrap().contains("certs.d"));
        let any = TlsSettings {
            skip_verify: true,
            ..TlsSettings::default()
        };
        assert_eq!(pull(&client(&host, any), &host).unwrap(), "hello");
    }
    // The bundle of the machine serves as well.
    let pem = std::fs::read(authority.file("ca.crt")).unwrap();
    let mut config = RegistriesConfig::default();
    let text = format!("server = \"https://{}\"", server.host);
    config.add_hosts_toml(&server.host, HostsToml::parse(&text, "/".as_ref()).unwrap());
    let client = hasty().config(config).system_roots(pem).build();
    assert_eq!(pull(&client, &server.host).unwrap(), "hello");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = authority.start();
    let host = format!("other.localhost:{}", server.port());
    let error = pull(&client(&host, authority.tls()), &host).unwrap_err();
    assert!(is_handshake(&error), "{error:?}");
}

#[test]
fn client_certificates_are_shown() {
    let authority = Authority::new();
    let server = Server::with_tls(Some(Arc::clone(&authority.strict)), |_, _| hello());
    let mut tls = authority.tls();
    assert!(pull(&client(&server.host, tls.clone()), &server.host).is_err());
    let pair = (
        authority.file("client.cert"),
        Some(authority.file("client.key")),
    );
    tls.client.push(pair);
    assert_eq!(
        pull(&client(&server.host, tls), &server.host).unwrap(),
        "hello"
    );
}

#[test]
fn bad_certificate_files_are_named() {
    let authority = Authority::new();
    let server = authority.start();
    std::fs::write(authority.file("empty"), "").unwrap();
    for (ca, part) in [("missing", "cannot read"), ("empty", "no certificate")] {
        let tls = TlsSettings {
            ca: vec![authority.file(ca)],
            ..TlsSettings::default()
        };
        let error = pull(&client(&server.host, tls), &server.host).unwrap_err();
        let text = format!("{:#?}", error);
        let Error::Http {
            source: HttpError::TlsSettings(error),
            ..
        } = error
        else {
            panic!("{text}");
        };
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains(ca), "{error}");
    }
}

#[test]
fn tls_is_never_left_by_a_redirect() {
    let authority = Authority::new();
    let plain = Server::start(|_, _| hello());
    let to = format!("Location: http://{}/x", plain.host);
    let server = Server::with_tls(Some(Arc::clone(&authority.server)), move |_, _| {
        answer(302, &to, "")
    });
    let error = pull(&client(&server.host, authority.tls()), &server.host).unwrap_err();
    assert!(
        error.to_string().contains("from TLS to plain HTTP"),
        "{error}"
    );
    assert!(plain.requests().is_empty());
}

#[test]
fn a_token_server_without_tls_gets_no_password() {
    let authority = Authority::new();
    let tokens = Server::start(|_, _| answer(200, "", r#"{"token":"t"}"#));
    let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/\"", tokens.host);
    let server = Server::with_tls(Some(Arc::clone(&authority.server)), move |_, _| {
        answer(401, &realm, "")
    });
    let error = pull(&client(&server.host, authority.tls()), &server.host).unwrap_err();
    let Error::Token { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        source.to_string().contains("not reached over TLS"),
        "{source}"
    );
    assert!(tokens.requests().is_empty());
}

#[test]
fn an_upload_location_with_the_wrong_scheme_stays_on_tls() {
    let authority = Authority::new();
    let server = Server::with_tls(
        Some(Arc::clone(&authority.server)),
        |request: &Request, _| {
            let host = request.field("host").unwrap();
            match request.method.as_str() {
                "HEAD" => answer(404, "", ""),
                "POST" => answer(202, &format!("Location: http://{host}/up"), ""),
                _ => answer(201, "", ""),
            }
        },
    );
    let client = client(&server.host, authority.tls());
    let content = b"hello".to_vec();
    repository(&client, &server.host)
        .push_blob(&digest(&content), &content, &Default::default())
        .unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_layer_that_registries_may_not_hand_on_comes_from_its_maker() {
    let authority = Authority::new();
    let maker = authority.start();
    let server = Server::with_tls(Some(Arc::clone(&authority.server)), |_, _| {
        answer(404, "", "")
    });
    let client = client(&server.host, authority.tls());
    let mut descriptor = blob();
    descriptor.urls = vec![
        "http://127.0.0.1:1/plain".to_owned(),
        format!("https://{}/layer", maker.host),
    ];
    let mut text = String::new();
    let mut blob = repository(&client, &server.host).blob(&descriptor).unwrap();
    blob.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

/// A proxy for one kind of request: tunnels, or forwarded plain requests.
fn proxy(to: String, log: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (mut near, to, log) = (stream, to.clone(), Arc::clone(&log));
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && near.read(&mut byte).is_ok_and(|n| n > 0) {
                    head.extend(byte);
                }
                let head = String::from_utf8(head).unwrap();
                log.lock().unwrap().push(head.clone());
                if !head.contains("Proxy-Authorization: Basic dTpw\r\n") {
                    let _ = near.write_all(b"HTTP/1.1 407 Login first\r\n\r\n");
                    return;
                }
                let mut far = TcpStream::connect(&to).unwrap();
                if head.starts_with("CONNECT") {
                    near.write_all(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n").unwrap();
                } else {
                    far.write_all(head.as_bytes()).unwrap();
                }
                let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut a, &mut b));
                let _ = std::io::copy(&mut far, &mut near);
            });
        }
    });
    host
}

#[test]
fn proxies_tunnel_tls_and_forward_plain_requests() {
    let authority = Authority::new();
    let secure = authority.start();
    let plain = Server::start(|_, _| hello());
    let log = Arc::default();
    let https = proxy(secure.host.clone(), Arc::clone(&log));
    let http = proxy(plain.host.clone(), Arc::clone(&log));
    let mut config = RegistriesConfig::default();
    let text = "server = \"http://plain.example\"";
    config.add_hosts_toml(
        "plain.example",
        HostsToml::parse(text, "/".as_ref()).unwrap(),
    );
    config.add_tls("registry.example", authority.tls());
    let (https, http) = (format!("http://u:p@{https}"), format!("http://u:p@{http}"));
    let variables = [
        ("https_proxy", https.as_str()),
        ("HTTP_PROXY", http.as_str()),
    ];
    let proxies = Proxies::from_environment(variables).unwrap();
    let client = hasty().config(config.clone()).proxies(proxies).build();
    // Both names exist for the proxy alone.
    assert_eq!(pull(&client, "registry.example").unwrap(), "hello");
    assert_eq!(pull(&client, "plain.example").unwrap(), "hello");
    assert_eq!(pull(&client, "plain.example").unwrap(), "hello");
    let seen: Vec<String> = log.lock().unwrap().clone();
    assert!(
        seen[0].starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"),
        "{seen:?}"
    );
    assert!(
        seen[1].starts_with("GET http://plain.example/v2/app/blobs/"),
        "{seen:?}"
    );
    // What the server behind the tunnel sees has nothing of the proxy.
    assert_eq!(secure.requests()[0].field("proxy-authorization"), None);

    let refusing = https.replace("u:p@", "");
    let proxies = Proxies::from_environment([("https_proxy", refusing.as_str())]).unwrap();
    let client = hasty().config(config).proxies(proxies).build();
    let error = pull(&client, "registry.example").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("407 Login first"), "{text}");
}

/// A SOCKS proxy that connects to `to` whatever it is asked for, and notes what that was.
fn socks(to: [String; 2], log: Arc<Mutex<Vec<String>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let (to, log) = (to.clone(), Arc::clone(&log));
            std::thread::spawn(move || {
                let mut hello = [0; 4];
                near.read_exact(&mut hello).unwrap();
                assert_eq!(hello, [5, 2, 0, 2]);
                near.write_all(&[5, 2]).unwrap();
                let mut login = [0; 5];
                near.read_exact(&mut login).unwrap();
                near.write_all(&[1, u8::from(login != [1, 1, b'u', 1, b'p'])])
                    .unwrap();
                let mut head = [0; 5];
                if near.read_exact(&mut head).is_err() {
                    return;
                }
                assert_eq!(head[..4], [5, 1, 0, 3]);
                let mut name = vec![0; usize::from(head[4]) + 2];
                near.read_exact(&mut name).unwrap();
                let port = name.split_off(name.len() - 2);
                log.lock().unwrap().push(String::from_utf8(name).unwrap());
                let to = &to[usize::from(port == [1, 187])];
                let mut far = TcpStream::connect(to).unwrap();
                near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
                let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut a, &mut b));
                let _ = std::io::copy(&mut far, &mut near);
            });
        }
    });
    host
}

#[test]
fn a_socks_proxy_connects_and_resolves() {
    let authority = Authority::new();
    let secure = authority.start();
    let plain = Server::start(|_, _| hello());
    let log = Arc::default();
    let proxy = socks([plain.host.clone(), secure.host.clone()], Arc::clone(&log));
    let mut config = RegistriesConfig::default();
    let text = "server = \"http://plain.example\"";
    config.add_hosts_toml(
        "plain.example",
        HostsToml::parse(text, "/".as_ref()).unwrap(),
    );
    config.add_tls("registry.example", authority.tls());
    let client = |user: &str| {
        let url = format!("socks5://{user}@{proxy}");
        let variables = [("https_proxy", url.as_str()), ("HTTP_PROXY", url.as_str())];
        let proxies = Proxies::from_environment(variables).unwrap();
        hasty().config(config.clone()).proxies(proxies).build()
    };
    assert_eq!(pull(&client("u:p"), "registry.example").unwrap(), "hello");
    assert_eq!(pull(&client("u:p"), "plain.example").unwrap(), "hello");
    assert_eq!(*log.lock().unwrap(), ["registry.example", "plain.example"]);
    let error = pull(&client("u:x"), "registry.example").unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("wrong user or password"), "{text}");
}
