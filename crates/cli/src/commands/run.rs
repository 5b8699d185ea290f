//! `run`: flags to a request, then the container in the foreground.

use crate::args::{PullPolicy, RunFlags};
use crate::console::{self, Streams};
use anyhow::{Context, bail};
use carrack_engine::images::ImagesError;
use carrack_engine::request::{Limits, RunRequest, SeccompChoice, Volume};
use carrack_engine::{Engine, EngineError, ImageError};
use std::path::Path;

/// `carrack run`: the exit code is that of the command.
///
/// # Errors
/// The container cannot be made; see `EngineError` for the exit codes.
pub fn run(engine: &Engine, flags: RunFlags) -> anyhow::Result<u8> {
    ensure_image(engine, &flags)?;
    let streams = Streams::open(flags.interactive, flags.tty)?;
    let request = request(flags, &streams)?;
    let outcome = console::foreground(streams, |fds| Ok(engine.run(&request, fds)?));
    if outcome.is_err() {
        // A monitor that was killed could not clean up.
        engine.sweep()?;
    }
    outcome
}

/// Brings the image into the store, when the policy says so.
fn ensure_image(engine: &Engine, flags: &RunFlags) -> anyhow::Result<()> {
    let fetch = || super::image::transfer::fetch(engine, &flags.image, flags.quiet);
    match flags.pull {
        PullPolicy::Never => Ok(()),
        PullPolicy::Always => fetch(),
        PullPolicy::Missing => match engine.image_to_run(&flags.image) {
            Err(EngineError::Image(ImageError::NotFound(_))) => fetch(),
            Err(EngineError::Images(ImagesError::MemberElsewhere { place, .. })) => {
                super::image::transfer::fetch(engine, &place, flags.quiet)
            }
            // Other errors are told where the image is used.
            _ => Ok(()),
        },
        PullPolicy::Newer => match (fetch(), engine.image_to_run(&flags.image)) {
            (Err(error), Ok(_)) => {
                log::warn!("using the image in the store: {}", crate::sentence(&error));
                Ok(())
            }
            (outcome, _) => outcome,
        },
    }
}

fn request(flags: RunFlags, streams: &Streams) -> anyhow::Result<RunRequest> {
    let network = flags.network()?;
    let mut env = Vec::new();
    for path in &flags.env_file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        env.extend(env_lines(&text, |name| std::env::var(name).ok()));
    }
    env.extend(
        flags
            .env
            .iter()
            .filter_map(|e| valued(e, |name| std::env::var(name).ok())),
    );
    let (no_new_privileges, seccomp) = security(&flags.security_opt)?;
    let volumes = flags
        .volume
        .into_iter()
        .map(existing)
        .collect::<anyhow::Result<_>>()?;
    Ok(RunRequest {
        image: flags.image,
        command: flags.command,
        entrypoint: flags
            .entrypoint
            .map(|e| if e.is_empty() { Vec::new() } else { vec![e] }),
        env,
        workdir: flags.workdir,
        user: flags.user,
        groups: flags.group_add,
        name: flags.name,
        hostname: flags.hostname,
        terminal: streams.terminal_size(),
        remove: flags.rm,
        volumes,
        tmpfs: flags.tmpfs,
        read_only: flags.read_only,
        limits: Limits {
            memory: flags.memory,
            cpu_millis: flags.cpus,
            cpu_shares: flags.cpu_shares,
            pids: flags.pids_limit,
        },
        network,
        cap_add: flags.cap_add,
        cap_drop: flags.cap_drop,
        privileged: flags.privileged,
        no_new_privileges,
        seccomp,
        ulimits: flags.ulimit,
    })
}

/// A variable without a value takes the one of this environment, and is left out when there is none.
fn valued(entry: &str, lookup: impl Fn(&str) -> Option<String>) -> Option<String> {
    match entry.contains('=') {
        true => Some(entry.to_owned()),
        false => lookup(entry).map(|value| format!("{entry}={value}")),
    }
}

/// Lines of an environment file: no quoting, `#` starts a comment line.
fn env_lines(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.filter_map(|l| valued(l, &lookup)).collect()
}

fn security(options: &[String]) -> anyhow::Result<(bool, SeccompChoice)> {
    let mut no_new_privileges = false;
    let mut seccomp = SeccompChoice::Default;
    for option in options {
        match option.split_once(['=', ':']).unwrap_or((option, "")) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", "unconfined") => seccomp = SeccompChoice::Unconfined,
            ("seccomp", path) if !path.is_empty() => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the seccomp profile {path}"))?;
                seccomp = SeccompChoice::Profile(text);
            }
            _ => bail!(
                "--security-opt {option:?} is not known; use no-new-privileges, seccomp=unconfined or seccomp=FILE"
            ),
        }
    }
    Ok((no_new_privileges, seccomp))
}

/// The monitor has another working directory, so the path must be absolute; it must also exist.
fn existing(volume: Volume) -> anyhow::Result<Volume> {
    let source = std::path::absolute(&volume.source)?;
    if !Path::new(&source).exists() {
        bail!(
            "the host path {} of a volume does not exist; make it first",
            source.display()
        );
    }
    Ok(Volume { source, ..volume })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files() {
        let lookup = |name: &str| (name == "HERE").then(|| "yes".to_owned());
        let lines = env_lines(
            "# comment\nA=1\n\n  B=two words # kept\nHERE\nGONE\nC=\n",
            lookup,
        );
        assert_eq!(lines, ["A=1", "B=two words # kept", "HERE=yes", "C="]);
    }

    #[test]
    fn security_options() {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let (strict, seccomp) =
            security(&words(&["no-new-privileges", "seccomp=unconfined"])).unwrap();
        assert!(strict && seccomp == SeccompChoice::Unconfined);
        assert!(security(&words(&["apparmor=x"])).is_err());
        assert!(security(&words(&["seccomp=/does/not/exist"])).is_err());
    }
}
