//! Registries that want to know who asks, and prove who they are: logins, credential helpers, mirrors,
//! certificates, blocked and insecure hosts, against Debian's docker-registry.

mod world;

use carrack_testkit::runtime::{Output, finish};
use carrack_testkit::{DockerRegistry, Skip, Terminal, require, skip};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use world::World;
use world::machines::{image, pushed};

/// bcrypt of "sesame".
const USERS: &str = "ali:$2b$05$onNBk6mgZn0l7kVn6mP1.eWluyhAZTundYHs47ELCwAdZUMTPgjPi\n";
/// Variables that lead to files of the person who runs the tests.
const OF_PERSON: [&str; 8] = [
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "CONTAINERS_REGISTRIES_CONF",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
];

/// A world with a home of its own, the image `app:v1`, and a registry that wants a login.
struct Guarded {
    world: World,
    registry: DockerRegistry,
    name: String,
}

impl Guarded {
    fn new(more: &str) -> Result<Guarded, Skip> {
        let world = World::empty()?;
        let users = world.path("htpasswd");
        std::fs::write(&users, USERS).unwrap();
        std::fs::create_dir(world.path("home")).unwrap();
        let auth = format!(
            "{more}auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            users.display()
        );
        let registry = DockerRegistry::start(&auth)?;
        image(&world, "app:v1", "linux/amd64");
        let name = format!("{}/team/app:v1", registry.host);
        Ok(Guarded {
            world,
            registry,
            name,
        })
    }

    fn home(&self, path: &str) -> PathBuf {
        self.world.path("home").join(path)
    }

    /// Writes a file of the home.
    fn write(&self, path: &str, text: &str) {
        let path = self.home(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        self.at_home(&mut command);
        command
    }

    fn at_home(&self, command: &mut Command) {
        for name in OF_PERSON {
            command.env_remove(name);
        }
        command.env("HOME", self.home(""));
    }

    fn carrack(&self, args: &[&str]) -> Output {
        finish(&mut self.command(args))
    }

    fn login(&self, password: &str) -> Output {
        self.carrack(&["login", "-u", "ali", "-p", password, &self.registry.host])
    }

    /// Pushes and pulls, which must work with these flags.
    #[track_caller]
    fn works(&self, flags: &[&str]) {
        self.carrack(&[&["push", "-q"], flags, &["app:v1", &self.name]].concat())
            .ok();
        self.carrack(&[&["pull", "-q"], flags, &[&self.name]].concat())
            .ok();
    }
}

/// An authority with the certificates of a server and of a client, as files in a directory.
fn certificates(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    write("ca.crt", issuer.pem());
    for (certificate, key, name) in [
        ("server.pem", "server.key", "127.0.0.1"),
        ("client.cert", "client.key", "client"),
    ] {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        write(certificate, params.signed_by(&pair, &issuer).unwrap().pem());
        write(key, pair.serialize_pem());
    }
}

/// Lines of docker-registry's configuration for TLS with these certificates.
fn tls(directory: &Path, clients: bool) -> String {
    let at = directory.display();
    let mut text = format!("  tls:\n    certificate: {at}/server.pem\n    key: {at}/server.key\n");
    if clients {
        text.push_str(&format!("    clientcas:\n      - {at}/ca.crt\n"));
    }
    text
}

#[test]
fn a_good_login_is_kept_and_used_until_the_logout() {
    let guarded = require!(Guarded::new(""));
    let host = guarded.registry.host.clone();
    let push = guarded.carrack(&["push", "app:v1", &guarded.name]);
    push.code_is(125)
        .fails_with(&format!("carrack login {host}"));
    let wrong = guarded.login("wrong").code_is(125);
    let wrong = wrong.fails_with("refuses the credentials of ali");
    assert!(
        !wrong.stderr.contains("wrong"),
        "no password is shown: {wrong}"
    );
    assert!(!guarded.home(".docker").exists());
    guarded
        .carrack(&["login", "--get-login", &host])
        .code_is(125)
        .fails_with("not logged in");

    let kept = guarded.home(".docker/config.json");
    let line = format!("Login Succeeded! (kept in {})\n", kept.display());
    guarded.login("sesame").ok().stdout_is(&line);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o600, 0o700));
    guarded
        .carrack(&["login", "--get-login", &host])
        .ok()
        .stdout_is("ali\n");
    guarded.works(&[]);
    guarded
        .carrack(&["search", "--format", "{{.Name}}", &format!("{host}/")])
        .ok()
        .stdout_is(&format!("{host}/team/app\n"));
    guarded
        .carrack(&["image", "tags", "--format", "{{.Tag}}", &guarded.name])
        .ok()
        .stdout_is("v1\n");
    // The peer finds it there as well.
    if skip::program("skopeo").is_ok() {
        let mut inspect = Command::new("skopeo");
        inspect.args(["inspect", "--tls-verify=false"]);
        inspect.arg(format!("docker://{}", guarded.name));
        guarded.at_home(&mut inspect);
        finish(&mut inspect).ok();
    }
    let line = format!("Removed the login for {host}\n");
    guarded.carrack(&["logout", &host]).ok().stdout_is(&line);
    guarded
        .carrack(&["pull", &guarded.name])
        .code_is(125)
        .fails_with("access without a login");
    guarded
        .carrack(&["logout", &host])
        .code_is(125)
        .fails_with("not logged in");

    // A part of the names, a URL, the password over a pipe; then everything is forgotten.
    let password = guarded.home("password");
    std::fs::write(&password, "sesame\n").unwrap();
    for name in [format!("{host}/team"), format!("http://{host}/v2/")] {
        let mut login = guarded.command(&["login", "-u", "ali", "--password-stdin", &name]);
        finish(login.stdin(std::fs::File::open(&password).unwrap())).ok();
        guarded.works(&[]);
        if name.ends_with("/team") {
            let other = format!("{host}/other/app:v1");
            let refused = guarded.carrack(&["push", "app:v1", &other]);
            refused.code_is(125).fails_with("access without a login");
        }
    }
    let all = guarded.carrack(&["logout", "--all"]).ok();
    let mut lines: Vec<_> = all.stdout.lines().collect();
    lines.sort_unstable();
    let removed = |name: &str| format!("Removed the login for {name}");
    assert_eq!(lines, [removed(&host), removed(&format!("{host}/team"))]);
    guarded.carrack(&["pull", &guarded.name]).code_is(125);
}

#[test]
fn credentials_come_from_flags_and_from_the_files_of_others() {
    let guarded = require!(Guarded::new(""));
    let host = guarded.registry.host.clone();
    guarded.works(&["--creds", "ali:sesame"]);
    let wrong = guarded.carrack(&["pull", "--creds", "ali:no", &guarded.name]);
    wrong
        .code_is(125)
        .fails_with("refuses the credentials of ali");
    let none = guarded.carrack(&["pull", "--creds", ":x", &guarded.name]);
    none.code_is(125).fails_with("--creds needs USER");

    let own = guarded.home("mine.json").display().to_string();
    let login = [
        "login",
        "-u",
        "ali",
        "-p",
        "sesame",
        "--authfile",
        &own,
        &host,
    ];
    guarded.carrack(&login).ok();
    guarded.works(&["--authfile", &own]);
    let mut pull = guarded.command(&["pull", "-q", &guarded.name]);
    finish(pull.env("REGISTRY_AUTH_FILE", &own)).ok();
    guarded.carrack(&["pull", &guarded.name]).code_is(125);
    guarded
        .carrack(&["pull", "--authfile", "/nowhere.json", &guarded.name])
        .code_is(125)
        .fails_with("/nowhere.json");

    // What podman keeps of a login, in its file for this session.
    let runtime = guarded.home("run");
    std::fs::create_dir(&runtime).unwrap();
    if skip::program("podman").is_ok() {
        let mut login = Command::new("podman");
        let (root, run) = (guarded.home("pr"), guarded.home("prr"));
        login.arg("--root").arg(root).arg("--runroot").arg(run);
        login.args([
            "login",
            "--tls-verify=false",
            "-u",
            "ali",
            "-p",
            "sesame",
            &host,
        ]);
        guarded.at_home(&mut login);
        let theirs = runtime.join("containers/auth.json");
        finish(login.env("REGISTRY_AUTH_FILE", &theirs)).ok();
        let mut pull = guarded.command(&["pull", "-q", &guarded.name]);
        finish(pull.env("XDG_RUNTIME_DIR", &runtime)).ok();
        let mut logout = guarded.command(&["logout", &host]);
        let logout = finish(logout.env("XDG_RUNTIME_DIR", &runtime)).code_is(125);
        logout.fails_with(&theirs.display().to_string());
    }
    guarded.write(".docker/config.json", "{broken");
    guarded
        .carrack(&["pull", &guarded.name])
        .code_is(125)
        .fails_with(".docker/config.json");
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let guarded = require!(Guarded::new(""));
    guarded
        .carrack(&["login", &guarded.registry.host])
        .code_is(125)
        .fails_with("--password-stdin");
    let (mut terminal, slave) = Terminal::open();
    let mut login = guarded.command(&["login", &guarded.registry.host]);
    login.stdin(slave.try_clone().unwrap());
    login.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = login.spawn().unwrap();
    drop(login);
    terminal.expect("Username: ");
    terminal.type_text("ali\n");
    terminal.expect("Password: ");
    terminal.type_text("sesame\n");
    let rest = terminal.read_to_end();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(
        rest.contains("Login Succeeded!") && !rest.contains("sesame"),
        "{rest}"
    );
}

#[test]
fn a_credential_helper_keeps_the_password() {
    let guarded = require!(Guarded::new(""));
    let host = guarded.registry.host.clone();
    // A helper that keeps one secret in a file.
    let script = "#!/bin/sh\nat=$HOME/secret\ncase $1 in\nstore) cat > $at ;;\nget) test -e $at || \
        { echo 'credentials not found in native keychain'; exit 1; }; cat $at ;;\nerase) rm -f $at ;;\nesac\n";
    let path = |name: &str| {
        guarded
            .home("bin")
            .join(format!("docker-credential-{name}"))
    };
    guarded.write("bin/docker-credential-ours", script);
    guarded.write(
        "bin/docker-credential-bad",
        "#!/bin/sh\necho the key ring is locked; exit 1\n",
    );
    for name in ["ours", "bad"] {
        std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let search = format!("{}:/usr/bin:/bin", guarded.home("bin").display());
    let carrack = |args: &[&str]| finish(guarded.command(args).env("PATH", &search));
    let config = |text: &str| guarded.write(".docker/config.json", text);
    for text in [
        format!("{{\"credHelpers\": {{\"{host}\": \"ours\"}}}}"),
        "{\"credsStore\": \"ours\"}".to_owned(),
    ] {
        config(&text);
        carrack(&["pull", &guarded.name]).code_is(125);
        carrack(&["login", "-u", "ali", "-p", "sesame", &host]).ok();
        let kept = std::fs::read_to_string(guarded.home(".docker/config.json")).unwrap();
        assert!(!kept.contains("auth\""), "{kept}");
        let secret = std::fs::read_to_string(guarded.home("secret")).unwrap();
        assert!(
            secret.contains(&host) && secret.contains("sesame"),
            "{secret}"
        );
        carrack(&["push", "-q", "app:v1", &guarded.name]).ok();
        carrack(&["login", "--get-login", &host])
            .ok()
            .stdout_is("ali\n");
        carrack(&["logout", &host]).ok();
        assert!(!guarded.home("secret").exists());
    }
    config("{\"credsStore\": \"bad\"}");
    let failed = carrack(&["pull", &guarded.name]).code_is(125);
    failed.fails_with("docker-credential-bad failed: the key ring is locked");
    config("{\"credsStore\": \"nowhere\"}");
    let failed = carrack(&["pull", &guarded.name]).code_is(125);
    failed.fails_with("docker-credential-nowhere");
}

#[test]
fn a_mirror_is_shown_its_own_credentials() {
    let guarded = require!(Guarded::new(""));
    let host = guarded.registry.host.clone();
    guarded.works(&["--creds", "ali:sesame"]);
    let conf = guarded.home("registries.conf").display().to_string();
    let text = format!(
        "[[registry]]\nprefix = \"upstream.invalid\"\nlocation = \"upstream.invalid\"\n\
         [[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n\
         [[registry]]\nprefix = \"blocked.example\"\nblocked = true\n"
    );
    guarded.write("registries.conf", &text);
    let conf = ["--registries-conf", &conf];
    let name = "upstream.invalid/team/app:v1";
    let pull = |verb: &[&str]| guarded.carrack(&[verb, &conf, &[name]].concat());
    // Without a login the mirror refuses, and the registry is asked.
    let refused = pull(&["pull"]).code_is(125);
    let refused = refused.fails_with(&host);
    assert!(refused.stderr.contains("upstream.invalid"), "{refused}");
    guarded.login("sesame").ok();
    let line = format!("{name} (from {host})");
    pull(&["pull"]).ok().stdout_has(&line);
    pull(&["manifest", "inspect"]).ok();
    // A login for the registry is not for its mirror.
    guarded.carrack(&["logout", &host]).ok();
    guarded.write(
        ".docker/config.json",
        // ali:sesame
        "{\"auths\": {\"upstream.invalid\": {\"auth\": \"YWxpOnNlc2FtZQ==\"}}}",
    );
    pull(&["pull"]).code_is(125);
    for verb in [&["pull"][..], &["manifest", "inspect"]] {
        let blocked = guarded.carrack(&[verb, &conf, &["blocked.example/app:v1"]].concat());
        blocked
            .code_is(125)
            .fails_with("blocked.example is blocked");
    }
    let blocked =
        guarded.carrack(&[&["push"][..], &conf, &["app:v1", "blocked.example/app"]].concat());
    blocked
        .code_is(125)
        .fails_with("blocked.example is blocked");
}

#[test]
fn certificates_are_checked_against_the_directories_that_people_have() {
    let world = require!(World::empty());
    let pki = world.path("pki");
    certificates(&pki);
    let guarded = require!(Guarded::new(&tls(&pki, false)));
    let host = guarded.registry.host.clone();
    let login = |flags: &[&str]| {
        let login = ["login", "-u", "ali", "-p", "sesame"];
        guarded.carrack(&[&login[..], flags, &[&host]].concat())
    };
    // The loopback is trusted unless one asks for more.
    login(&[]).ok();
    guarded.works(&[]);
    guarded.works(&["--tls-verify=false"]);
    let unknown = login(&["--tls-verify"]).code_is(125);
    unknown.fails_with("certificate");
    let pull = guarded.carrack(&["pull", "--tls-verify=true", &guarded.name]);
    pull.code_is(125).fails_with("certificate");
    let directory = pki.display().to_string();
    login(&["--tls-verify", "--cert-dir", &directory]).ok();
    guarded.works(&["--tls-verify", "--cert-dir", &directory]);
    guarded
        .carrack(&["pull", "--cert-dir", "/nowhere", &guarded.name])
        .code_is(125)
        .fails_with("/nowhere");
    let copy = [
        "image",
        "copy",
        "-q",
        "--src-tls-verify=true",
        "--src-cert-dir",
        &directory,
    ];
    let layout = format!("oci:{}", guarded.home("layout").display());
    guarded
        .carrack(&[&copy[..], &[&guarded.name, &layout]].concat())
        .ok();
    // A person's own directory; another authority than the server's does not do.
    let own = guarded.home(".config/containers/certs.d").join(&host);
    certificates(&own);
    login(&["--tls-verify"])
        .code_is(125)
        .fails_with("certificate");
    std::fs::copy(pki.join("ca.crt"), own.join("ca.crt")).unwrap();
    login(&["--tls-verify"]).ok();
    guarded.works(&["--tls-verify"]);
    // A file that is no certificate is named.
    std::fs::write(own.join("ca.crt"), "nonsense").unwrap();
    let bad = login(&["--tls-verify"]).code_is(125);
    bad.fails_with("certs.d");
    // The distribution's bundle, in whose place a variable names another.
    std::fs::remove_dir_all(&own).unwrap();
    let mut pull = guarded.command(&["pull", "-q", "--tls-verify", &guarded.name]);
    finish(pull.env("SSL_CERT_FILE", pki.join("ca.crt"))).ok();
}

#[test]
fn a_registry_that_wants_a_client_certificate_gets_it() {
    let world = require!(World::empty());
    let pki = world.path("pki");
    certificates(&pki);
    let guarded = require!(Guarded::new(&tls(&pki, true)));
    guarded.write(
        ".docker/config.json",
        &format!(
            "{{\"auths\": {{\"{}\": {{\"auth\": \"YWxpOnNlc2FtZQ==\"}}}}}}",
            guarded.registry.host
        ),
    );
    let own = guarded
        .home(".config/containers/certs.d")
        .join(&guarded.registry.host);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(pki.join("ca.crt"), own.join("ca.crt")).unwrap();
    let refused = guarded.carrack(&["push", "--tls-verify", "app:v1", &guarded.name]);
    refused.code_is(125).fails_with(&guarded.registry.host);
    for name in ["client.cert", "client.key"] {
        std::fs::copy(pki.join(name), own.join(name)).unwrap();
    }
    guarded.works(&["--tls-verify"]);
    std::fs::remove_file(own.join("client.key")).unwrap();
    let without_key = guarded.carrack(&["pull", "--tls-verify", &guarded.name]);
    without_key.code_is(125).fails_with("client.key");
    std::fs::remove_dir_all(&own).unwrap();
    let directory = pki.display().to_string();
    guarded.works(&["--tls-verify", "--cert-dir", &directory]);
}

#[test]
fn a_registry_without_tls_is_taken_only_where_that_is_allowed() {
    let world = require!(World::empty());
    let registry = require!(DockerRegistry::start(""));
    let (name, _) = pushed(&world, &registry, "app:v1", "linux/amd64");
    let pull = world.carrack(&["pull", "--tls-verify=true", &name]);
    pull.code_is(125).fails_with(&registry.host);
    // What a registries.conf allows, the flag forbids.
    let conf = world.path("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.host
    );
    std::fs::write(&conf, text).unwrap();
    let conf = conf.display().to_string();
    world
        .carrack(&["pull", "-q", "--registries-conf", &conf, &name])
        .ok();
    world
        .carrack(&[
            "pull",
            "--tls-verify=true",
            "--registries-conf",
            &conf,
            &name,
        ])
        .code_is(125);
    std::fs::write(&conf, "[[registry]]\nlocation = 1\n").unwrap();
    world
        .carrack(&["pull", "--registries-conf", &conf, &name])
        .code_is(125)
        .fails_with("registries.conf");
}
