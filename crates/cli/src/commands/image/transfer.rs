//! `pull`, `push`, `image copy`.

use crate::progress::{Direction, Progress};
use crate::registry_args::{CopyFlags, MultiArch, ProgressMode, PullFlags, PushFlags, SendFlags};
use anyhow::{Context, bail};
use carrack_engine::Engine;
use carrack_engine::images::{
    Access, AccessOptions, CopyOptions, Place, Platforms, PullOptions, Pulled, Pushed,
};
use carrack_spec::image::Platform;
use carrack_spec::{Digest, Reference};
use std::io::Write;
use std::path::Path;

/// Most tags of one repository that `--all-tags` pulls.
const TAGS_MAX: usize = 1000;

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
        let progress = flags.tell.progress(Direction::In);
        let pulled = engine.pull(&access, name, &options, &|event| progress.tell(event));
        drop(progress);
        match pulled {
            Ok(pulled) => {
                warn_of_another_machine(&pulled, &options);
                report(&pulled, flags)?;
            }
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
    let progress = Progress::new(Direction::In, ProgressMode::Auto, quiet);
    let options = PullOptions::default();
    let pulled = engine.pull(&access, image, &options, &|event| progress.tell(event))?;
    drop(progress);
    warn_of_another_machine(&pulled, &options);
    Ok(())
}

/// A name that leads to one image only, for another machine than was asked for, is no error.
fn warn_of_another_machine(pulled: &Pulled, options: &PullOptions) {
    let made_for = &pulled.record.platform;
    let host = options.platform.clone().unwrap_or_else(Platform::native);
    if !made_for.architecture.is_empty() && host.distance(made_for).is_none() {
        let name = pulled.record.name();
        eprintln!("carrack: warning: {name} is for {made_for}, not for {host}");
    }
}

fn report(pulled: &Pulled, flags: &PullFlags) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let record = &pulled.record;
    if flags.tell.quiet {
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

/// `carrack push`.
///
/// # Errors
/// As [`Engine::push`].
pub fn push(engine: &Engine, flags: &PushFlags) -> anyhow::Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let place: Option<Place> = flags.destination.as_deref().map(str::parse).transpose()?;
    let progress = flags.send.tell.progress(Direction::Out);
    let tell = |event| progress.tell(event);
    let options = flags.send.options(flags.all);
    let pushed = engine.push(&access, &flags.image, place, &options, &tell)?;
    drop(progress);
    report_pushed(&pushed, &flags.send)?;
    Ok(0)
}

/// Tells what was pushed, and where.
///
/// # Errors
/// The file for the digest cannot be written.
pub fn report_pushed(pushed: &Pushed, flags: &SendFlags) -> anyhow::Result<()> {
    digestfile(flags.digestfile.as_deref(), &pushed.digest)?;
    let mut out = std::io::stdout();
    if !flags.tell.quiet {
        // A name in a registry is written as people write it.
        let place = match &pushed.place {
            Place::Registry(name) => name.clone(),
            place => place.to_string(),
        };
        match pushed.manifests {
            0 | 1 => writeln!(out, "Pushed: {place}")?,
            n => writeln!(out, "Pushed: {place} with {n} images")?,
        }
    }
    writeln!(out, "{}", pushed.digest)?;
    Ok(())
}

/// `carrack image copy`.
///
/// # Errors
/// As [`Engine::copy`].
pub fn copy(engine: &Engine, flags: &CopyFlags) -> anyhow::Result<u8> {
    let from_access = Access::open(flags.source_options()?)?;
    let to_access = Access::open(flags.destination_options()?)?;
    let from: Place = flags.source.parse()?;
    let to: Place = flags.destination.parse()?;
    let platforms = match (flags.all, flags.multi_arch, &flags.platform) {
        (true, _, _) | (_, Some(MultiArch::All), _) => Platforms::All,
        (_, Some(MultiArch::IndexOnly), _) => Platforms::IndexOnly,
        (_, _, Some(platform)) => Platforms::One(platform.clone()),
        _ => Platforms::Native,
    };
    let progress = flags.tell.progress(Direction::Across);
    let tell = |event| progress.tell(event);
    let options = CopyOptions { platforms };
    let copied = engine.copy((&from, &from_access), (&to, &to_access), &options, &tell)?;
    drop(progress);
    digestfile(flags.digestfile.as_deref(), &copied.digest)?;
    if !flags.tell.quiet {
        let plural = if copied.manifests == 1 { "" } else { "s" };
        writeln!(
            std::io::stdout(),
            "Copied {} manifest{plural} to {to}",
            copied.manifests
        )?;
    }
    writeln!(std::io::stdout(), "{}", copied.digest)?;
    Ok(0)
}

/// Writes a digest to a file, where one is named.
fn digestfile(path: Option<&Path>, digest: &Digest) -> anyhow::Result<()> {
    match path {
        None => Ok(()),
        Some(path) => std::fs::write(path, digest.to_string())
            .with_context(|| format!("cannot write {}", path.display())),
    }
}

fn all_tags(access: &Access, image: &str) -> anyhow::Result<Vec<String>> {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    let reference: Reference = name.parse().with_context(|| format!("{name:?}"))?;
    if reference.digest().is_some() || name.rsplit('/').next().is_some_and(|l| l.contains(':')) {
        bail!("--all-tags takes a name without a tag, not {name:?}");
    }
    Ok(access.tags(&reference, TAGS_MAX)?)
}
