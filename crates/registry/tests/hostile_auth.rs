//! Who we are, to whom, and to nobody else.

mod support;

use std::collections::HashMap;
use std::sync::Arc;

use carrack_registry::{
    Builder, Credential, Credentials, Endpoint, Error, HostsToml, MirrorCredentials,
    RegistriesConf, RegistriesConfig, Repository, Transport, Which, credentials::CredentialsError,
};
use carrack_spec::Reference;
use carrack_spec::image::Descriptor;
use support::server::{Reply, Request, Server, answer};
use support::{digest, hasty};

/// Credentials by host.
#[derive(Default)]
struct Known(HashMap<String, Credential>);

impl Credentials for Known {
    fn get(&self, host: &str, _: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(self.0.get(host).cloned())
    }
}

fn basic(name: &str) -> Credential {
    Credential::Basic {
        username: name.into(),
        password: format!("{name}-password"),
    }
}

/// `Basic` of `NAME:NAME-password`.
fn header(name: &str) -> String {
    use base64::Engine;
    let pair = format!("{name}:{name}-password");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

fn client(known: &[(&str, Credential)]) -> Builder {
    let known = known
        .iter()
        .map(|(host, c)| ((*host).to_owned(), c.clone()));
    hasty().credentials(Arc::new(Known(known.collect())))
}

fn repository(builder: Builder, host: &str) -> Repository {
    let reference: Reference = format!("{host}/team/app").parse().unwrap();
    builder.build().repository(&reference).unwrap()
}

fn wants_basic() -> Reply {
    answer(401, "WWW-Authenticate: Basic realm=\"r\"", "")
}

fn tags() -> Reply {
    answer(200, "", r#"{"tags":["a"]}"#)
}

#[test]
fn basic_credentials_are_sent_when_asked_for_and_remembered() {
    let server = Server::start(|request, _| match request.field("authorization") {
        Some(value) if value == header("ali") => tags(),
        _ => wants_basic(),
    });
    let repository = repository(client(&[(&server.host, basic("ali"))]), &server.host);
    repository.tags(None, 1).unwrap();
    repository.tags(None, 1).unwrap();
    let shown: Vec<bool> = server
        .requests()
        .iter()
        .map(|r| r.field("authorization").is_some())
        .collect();
    assert_eq!(shown, [false, true, true]);
}

#[test]
fn a_registry_that_refuses_for_ever_is_asked_twice() {
    let server = Server::start(|_, _| wants_basic());
    let with = repository(client(&[(&server.host, basic("ali"))]), &server.host);
    let error = with.tags(None, 1).unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { username: Some(name), .. } if name == "ali"),
        "{error:?}"
    );
    assert!(!error.to_string().contains("password"), "{error}");
    assert_eq!(server.requests().len(), 2);
    let error = with.tags(None, 1).unwrap_err();
    assert_eq!(
        server.requests().len(),
        3,
        "known credentials are shown at once: {error}"
    );

    let server = Server::start(|_, _| answer(401, "WWW-Authenticate: Negotiate", ""));
    let error = repository(hasty(), &server.host).tags(None, 1).unwrap_err();
    assert!(error.to_string().contains("only by Negotiate"), "{error}");
    let server = Server::start(|_, _| answer(401, "", ""));
    let error = repository(hasty(), &server.host).tags(None, 1).unwrap_err();
    assert!(error.to_string().contains("no WWW-Authenticate"), "{error}");
}

/// A token server that knows ali, and a registry that wants its tokens.
fn token_pair(life: u64) -> (Arc<Server>, Server) {
    let tokens = Arc::new(Server::start(move |_, number| {
        answer(
            200,
            "",
            format!(r#"{{"token":"t{number}","expires_in":{life}}}"#),
        )
    }));
    let realm = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"repository:team/app:pull\"",
        tokens.host
    );
    let registry = Server::start(move |request, _| match request.field("authorization") {
        Some(value) if value.starts_with("Bearer t") => tags(),
        _ => answer(401, &realm, ""),
    });
    (tokens, registry)
}

#[test]
fn tokens_are_fetched_once_for_a_scope() {
    let (tokens, registry) = token_pair(300);
    let repository = repository(client(&[(&registry.host, basic("ali"))]), &registry.host);
    for _ in 0..3 {
        repository.tags(None, 1).unwrap();
    }
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].field("authorization"),
        Some(header("ali").as_str())
    );
    let wanted = "/token?service=reg&scope=repository:team/app:pull&account=ali";
    assert_eq!(asked[0].target, wanted);
    // Another right needs another token.
    let _ = repository.has_blob(&digest(b"x"));
    let asked = tokens.requests();
    assert!(
        asked[1]
            .target
            .contains("scope=repository:team/app:pull%2Cpush"),
        "{}",
        asked[1].target
    );
    // The password went to the token server only.
    let leaked = |r: &Request| {
        r.field("authorization")
            .is_some_and(|v| v.starts_with("Basic"))
    };
    assert!(!registry.requests().iter().any(leaked));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let tokens = Server::start(|_, n| answer(200, "", format!(r#"{{"access_token":"t{n}"}}"#)));
    let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/\"", tokens.host);
    let registry =
        Server::start(
            move |request, number| match (request.field("authorization"), number) {
                (Some("Bearer t0"), 1) | (Some("Bearer t1"), _) => tags(),
                _ => answer(401, &realm, ""),
            },
        );
    let app = repository(hasty(), &registry.host);
    app.tags(None, 1).unwrap();
    app.tags(None, 1).unwrap();
    assert_eq!(tokens.requests().len(), 2);
    assert_eq!(registry.requests().len(), 4);
}

#[test]
fn identity_tokens_are_exchanged_by_oauth2() {
    let (tokens, registry) = token_pair(300);
    let token = Credential::IdentityToken("refresh&me".into());
    repository(client(&[(&registry.host, token)]), &registry.host)
        .tags(None, 1)
        .unwrap();
    let asked = &tokens.requests()[0];
    assert_eq!(asked.method, "POST");
    let body = String::from_utf8(asked.body.clone()).unwrap();
    let wanted = "grant_type=refresh_token&service=reg&client_id=carrack&refresh_token=refresh%26me&scope=repository:team/app:pull";
    assert_eq!(body, wanted);
}

#[test]
fn bad_token_servers_are_named() {
    for (reply, part) in [
        (answer(200, "", "<html>"), "no JSON"),
        (answer(200, "", "{}"), "no token"),
        (answer(200, "", r#"{"token":"a\r\nX: y"}"#), "characters"),
        (
            answer(401, "", r#"{"details":"incorrect username or password"}"#),
            "incorrect username",
        ),
        (answer(200, "Content-Length: 9999999", ""), "exceeds"),
    ] {
        let tokens = Server::start(move |_, _| reply.clone());
        let realm = format!("WWW-Authenticate: Bearer realm=\"http://{}/\"", tokens.host);
        let registry = Server::start(move |_, _| answer(401, &realm, ""));
        let error = repository(hasty(), &registry.host)
            .tags(None, 1)
            .unwrap_err();
        let Error::Token { source, .. } = &error else {
            panic!("{error:?}");
        };
        let text = format!("{source} {:?}", std::error::Error::source(source.as_ref()));
        let two_lengths = part == "exceeds" && text.contains("two different content lengths");
        assert!(text.contains(part) || two_lengths, "{text}");
    }
    let registry =
        Server::start(|_, _| answer(401, "WWW-Authenticate: Bearer realm=\"ftp://x\"", ""));
    let error = repository(hasty(), &registry.host)
        .tags(None, 1)
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("token server is unusable"),
        "{error:?}"
    );
}

#[test]
fn a_redirect_to_another_host_carries_nothing_of_ours() {
    let cdn = Server::start(|_, _| answer(200, "", b"12345"));
    let to = format!("Location: http://{}/x", cdn.host);
    let registry = Server::start(move |request, _| match request.field("authorization") {
        None => wants_basic(),
        Some(_) => answer(307, &to, ""),
    });
    let mut config = RegistriesConfig::default();
    let hosts = format!(
        "server = \"http://{0}\"\n[header]\nx-secret = \"s\"\n",
        registry.host
    );
    let hosts = HostsToml::parse(&hosts, "/".as_ref()).unwrap();
    config.add_hosts_toml(&registry.host, hosts);
    let builder =
        client(&[(&registry.host, basic("ali")), (&cdn.host, basic("cdn"))]).config(config);
    let descriptor = Descriptor::new("x", digest(b"12345"), 5);
    repository(builder, &registry.host)
        .blob(&descriptor)
        .unwrap();
    assert_eq!(registry.requests()[1].field("x-secret"), Some("s"));
    let asked = &cdn.requests()[0];
    assert_eq!(
        (asked.field("authorization"), asked.field("x-secret")),
        (None, None)
    );
    assert_eq!(asked.field("host"), Some(cdn.host.as_str()));
}

#[test]
fn a_challenge_of_another_host_is_not_answered() {
    let thief = Server::start(|_, _| wants_basic());
    let to = format!("Location: http://localhost:{}/x", thief.port());
    let registry = Server::start(move |_, _| answer(302, &to, ""));
    let known = [(registry.host.as_str(), basic("ali"))];
    let error = repository(client(&known), &registry.host)
        .tags(None, 1)
        .unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert_eq!(thief.requests().len(), 1);
    assert_eq!(thief.requests()[0].field("authorization"), None);
}

/// A mirror that wants a password, and a registry behind it.
fn mirrored(mirror: &Server, registry: &Server) -> RegistriesConfig {
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/cache\"\n",
        registry.host, mirror.host
    );
    let mut config = RegistriesConfig::default();
    config.add_registries_conf(RegistriesConf::parse(&text).unwrap());
    config
}

#[test]
fn credentials_work_with_mirrors() {
    let mirror = Server::start(|request, _| match request.field("authorization") {
        Some(value) if value == header("mira") => tags(),
        _ => wants_basic(),
    });
    let registry = Server::start(|_, _| tags());
    let both = [
        (mirror.host.as_str(), basic("mira")),
        (registry.host.as_str(), basic("orig")),
    ];
    let app = repository(
        client(&both).config(mirrored(&mirror, &registry)),
        &registry.host,
    );
    app.tags(None, 1).unwrap();
    assert_eq!(
        app.served_by().map(|e: &Endpoint| e.host.as_str()),
        Some(mirror.host.as_str())
    );
    assert_eq!(mirror.requests()[1].path(), "/v2/cache/team/app/tags/list");
    assert!(registry.requests().is_empty());
}

#[test]
fn the_originals_credentials_go_to_a_mirror_only_when_that_is_wanted() {
    for (mirrors, wanted) in [
        (MirrorCredentials::Own, None),
        (MirrorCredentials::OwnThenOriginal, Some(header("orig"))),
    ] {
        let mirror = Server::start(|request, _| match request.field("authorization") {
            Some(_) => tags(),
            None => wants_basic(),
        });
        let registry = Server::start(|_, _| tags());
        let original = [(registry.host.as_str(), basic("orig"))];
        let builder = client(&original)
            .config(mirrored(&mirror, &registry))
            .mirror_credentials(mirrors);
        repository(builder, &registry.host).tags(None, 1).unwrap();
        let shown = mirror
            .requests()
            .last()
            .unwrap()
            .field("authorization")
            .map(str::to_owned);
        assert_eq!(shown, wanted);
        // Without credentials for the mirror the registry itself answers.
        assert_eq!(registry.requests().is_empty(), wanted.is_some());
    }
}

#[test]
fn broken_mirrors_are_passed_over_and_told_of() {
    let registry = Server::start(|request, _| match request.path().contains("missing") {
        true => answer(404, "", r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        false => tags(),
    });
    for reply in [
        answer(500, "", ""),
        answer(404, "", ""),
        Reply::Close(Vec::new()),
        wants_basic(),
    ] {
        let mirror = Server::start(move |_, _| reply.clone());
        let config = mirrored(&mirror, &registry);
        let app = repository(hasty().config(config), &registry.host);
        app.tags(None, 1).unwrap();
        // The one that answered is asked first from now on.
        let before = mirror.requests().len();
        app.tags(None, 1).unwrap();
        assert_eq!(mirror.requests().len(), before);
    }
    let mirror = Server::start(|_, _| answer(500, "", "broken disk"));
    let config = mirrored(&mirror, &registry);
    let app = repository(hasty().config(config), &registry.host);
    let error = app.manifest(Which::Tag("missing")).unwrap_err();
    assert!(error.is_not_found());
    assert!(error.to_string().contains("broken disk"), "{error}");
}

#[test]
fn a_login_gives_a_token_to_keep_where_there_is_one() {
    let tokens = Server::start(|request, _| match request.method.as_str() {
        "GET" if request.target.contains("offline_token=true") => {
            answer(200, "", r#"{"token":"x","refresh_token":"keep"}"#)
        }
        "POST" => answer(200, "", r#"{"access_token":"good"}"#),
        _ => answer(500, "", ""),
    });
    let realm = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/t\",service=\"s\"",
        tokens.host
    );
    let registry = Server::start(move |request, _| match request.field("authorization") {
        Some("Bearer good") => answer(200, "", "{}"),
        _ => answer(401, &realm, ""),
    });
    let client = hasty().build();
    let whole = client.registry(&registry.host).unwrap();
    let login = whole.login(&basic("ali")).unwrap();
    assert_eq!(login.credential, Credential::IdentityToken("keep".into()));
    let open = Server::start(|_, _| answer(200, "", "{}"));
    let login = client
        .registry(&open.host)
        .unwrap()
        .login(&basic("ali"))
        .unwrap();
    assert!(!login.was_asked);
    assert_eq!(open.requests()[0].field("authorization"), None);
}

#[test]
fn search_is_dockers_or_the_catalogue() {
    let server = Server::start(|request, _| match request.path() {
        "/v1/search" => answer(
            200,
            "",
            r#"{"results":[{"name":"a/b","description":null,"star_count":3,"is_official":true}]}"#,
        ),
        _ => answer(404, "", ""),
    });
    let client = hasty().build();
    let found = client
        .registry(&server.host)
        .unwrap()
        .search("b", 5)
        .unwrap();
    assert_eq!((found[0].name.as_str(), found[0].star_count), ("a/b", 3));
}

#[test]
fn a_plain_host_is_found_out_once() {
    let server = Server::start(|_, _| tags());
    let client = hasty().build();
    let reference: Reference = format!("{}/app", server.host).parse().unwrap();
    let repository = client.repository(&reference).unwrap();
    assert_eq!(repository.endpoints()[0].transport, Transport::Any);
    for _ in 0..3 {
        repository.tags(None, 1).unwrap();
    }
    assert_eq!((server.requests().len(), server.connections()), (3, 1));
}
