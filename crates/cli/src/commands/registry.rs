//! `pull`, `login`, `logout`.

use crate::progress::Progress;
use crate::registry_args::{LoginFlags, LogoutFlags, ProgressMode, PullFlags};
use anyhow::{Context, bail};
use carrack_engine::Engine;
use carrack_engine::images::{Access, AccessOptions, Credential, PullOptions, Pulled};
use carrack_spec::Reference;
use std::io::{BufRead, Read, Write};

/// Most tags of one repository that `--all-tags` pulls.
const TAGS_MAX: usize = 1000;
/// Longest password that is read from standard input, in bytes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// `carrack pull`.
///
/// # Errors
/// The configuration of registries cannot be used; single images that fail are told, and the code is 1.
pub fn pull(engine: &Engine, flags: &PullFlags) -> anyhow::Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let options = PullOptions {
        platform: flags.platform.clone(),
    };
    let mut names = Vec::new();
    for image in &flags.images {
        match flags.all_tags {
            true => names.extend(all_tags(&access, image)?),
            false => names.push(image.clone()),
        }
    }
    let mut code = 0;
    for name in &names {
        let progress = Progress::new(flags.progress, flags.quiet);
        let tell = |event| progress.tell(event);
        match engine.pull(&access, name, &options, &tell) {
            Ok(pulled) => report(&pulled, flags)?,
            Err(error) => {
                eprintln!("carrack: {}", crate::sentence(&error.into()));
                code = crate::CODE_FAILURE;
            }
        }
    }
    Ok(code)
}

/// Pulls one image for a verb that needs it, and tells of it as `pull` does.
///
/// # Errors
/// As [`Engine::pull`].
pub fn fetch(engine: &Engine, image: &str, quiet: bool) -> anyhow::Result<()> {
    let access = Access::open(AccessOptions::default())?;
    let progress = Progress::new(ProgressMode::Auto, quiet);
    let tell = |event| progress.tell(event);
    engine.pull(&access, image, &PullOptions::default(), &tell)?;
    Ok(())
}

fn report(pulled: &Pulled, flags: &PullFlags) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let record = &pulled.record;
    if flags.quiet {
        writeln!(out, "{}", record.id.hex())?;
        return Ok(());
    }
    let from = pulled.mirror.as_ref().map(|host| format!(" (from {host})"));
    writeln!(
        out,
        "{} {}{}\n{}",
        if pulled.up_to_date {
            "Up to date:"
        } else {
            "Pulled:"
        },
        record.name(),
        from.unwrap_or_default(),
        record.target.digest,
    )?;
    Ok(())
}

fn all_tags(access: &Access, image: &str) -> anyhow::Result<Vec<String>> {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    let reference: Reference = name.parse().with_context(|| format!("{name:?}"))?;
    if reference.digest().is_some() || name.rsplit('/').next().is_some_and(|l| l.contains(':')) {
        bail!("--all-tags takes a name without a tag, not {name:?}");
    }
    Ok(access.tags(&reference, TAGS_MAX)?)
}

/// `carrack login`.
///
/// # Errors
/// The registry refuses the credential, or it cannot be kept.
pub fn login(flags: &LoginFlags) -> anyhow::Result<u8> {
    let access = Access::open(AccessOptions {
        tls_verify: flags.tls_verify,
        cert_dir: flags.cert_dir.clone(),
        ..AccessOptions::default()
    })?;
    let username = match &flags.username {
        Some(name) => name.clone(),
        None => ask("Username: ", true)?,
    };
    let password = match (&flags.password, flags.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => {
            let mut text = String::new();
            let input = std::io::stdin().take(PASSWORD_BYTES_MAX);
            std::io::BufReader::new(input).read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => ask("Password: ", false)?,
    };
    if username.is_empty() || password.is_empty() {
        bail!("a login needs a user name and a password");
    }
    let credential = Credential::Basic { username, password };
    let done = access.login(&flags.registry, &credential, flags.authfile.as_deref())?;
    if !done.was_asked {
        eprintln!("carrack: {} did not ask for credentials", flags.registry);
    }
    println!("Login Succeeded! (kept in {})", done.file.display());
    Ok(0)
}

/// `carrack logout`.
///
/// # Errors
/// Nobody is logged in, or a file cannot be written.
pub fn logout(flags: &LogoutFlags) -> anyhow::Result<u8> {
    let access = Access::open(AccessOptions::default())?;
    access.logout(&flags.registry, flags.authfile.as_deref())?;
    println!("Removed the login for {}", flags.registry);
    Ok(0)
}

/// Asks a person on the terminal; what is typed is shown or not.
fn ask(prompt: &str, shown: bool) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        bail!("standard input is no terminal; use --username and --password-stdin");
    }
    eprint!("{prompt}");
    let before = tcgetattr(&stdin)?;
    if !shown {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if !shown {
        tcsetattr(&stdin, OptionalActions::Flush, &before)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
