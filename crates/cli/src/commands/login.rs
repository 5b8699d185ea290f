//! `login`, `logout`.

use crate::registry_args::{LoginFlags, LogoutFlags};
use anyhow::bail;
use carrack_engine::images::{Access, AccessOptions, Credential};
use std::io::{BufRead, Read, Write};

/// Longest password that is read from standard input, in bytes.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// `carrack login`.
///
/// # Errors
/// The registry refuses the credential, or it cannot be kept.
pub fn login(flags: &LoginFlags) -> anyhow::Result<u8> {
    if flags.get_login {
        let known = Access::logged_in(&flags.registry, flags.authfile.as_deref())?;
        writeln!(
            std::io::stdout(),
            "{}",
            known.username().unwrap_or("<token>")
        )?;
        return Ok(0);
    }
    let access = Access::open(AccessOptions {
        tls_verify: flags.tls.tls_verify,
        cert_dir: flags.tls.cert_dir.clone(),
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
    writeln!(
        std::io::stdout(),
        "Login Succeeded! (kept in {})",
        done.file.display()
    )?;
    Ok(0)
}

/// `carrack logout`.
///
/// # Errors
/// Nobody is logged in, or a file cannot be written.
pub fn logout(flags: &LogoutFlags) -> anyhow::Result<u8> {
    let authfile = flags.authfile.as_deref();
    if flags.all {
        for name in Access::logout_of_all(authfile)? {
            writeln!(std::io::stdout(), "Removed the login for {name}")?;
        }
        return Ok(0);
    }
    Access::logout(&flags.registry, authfile)?;
    writeln!(
        std::io::stdout(),
        "Removed the login for {}",
        flags.registry
    )?;
    Ok(0)
}

/// Asks a person on the terminal; what is typed is shown or not.
fn ask(prompt: &str, shown: bool) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        bail!("standard input is no terminal; use --username and --password-stdin");
    }
    let before = tcgetattr(&stdin)?;
    if !shown {
        // Before the prompt: who answers at once is not shown either, and nothing typed is dropped.
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Drain, &hidden)?;
    }
    eprint!("{prompt}");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if !shown {
        tcsetattr(&stdin, OptionalActions::Drain, &before)?;
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
