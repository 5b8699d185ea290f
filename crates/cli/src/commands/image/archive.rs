//! `load`, `save`, `import`.

use crate::image_args::{ImportFlags, LoadFlags, SaveFlags, SaveFormat};
use crate::progress::{Counted, Direction, Progress};
use crate::registry_args::ProgressMode;
use crate::time;
use anyhow::{Context, Result, bail};
use carrack_engine::images::{
    Access, AccessOptions, ImagesError, ImportOptions, Place, PushOptions, SaveForm, SaveOptions,
};
use carrack_engine::{Compression, Engine, EngineError, ImageRecord, LoadOptions, NewFile};
use carrack_spec::image::ContainerConfig;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

const BUFFER_BYTES: usize = 256 << 10;

/// `carrack load`.
///
/// # Errors
/// The archive cannot be loaded.
pub fn load(engine: &Engine, flags: &LoadFlags) -> Result<u8> {
    let path = flags.input.clone().filter(|p| p != Path::new("-"));
    if path.is_none() && rustix::termios::isatty(std::io::stdin()) {
        bail!("name an archive with -i, or pipe one in");
    }
    let options = LoadOptions {
        path,
        name: flags.name.clone(),
        platform: flags.platform.clone(),
    };
    let progress = Progress::new(Direction::Load, ProgressMode::Auto, flags.quiet);
    let loaded = engine.load(&options, &|event| progress.tell(event))?;
    drop(progress);
    let mut out = std::io::stdout();
    for record in loaded.iter().flat_map(|image| &image.records) {
        let name = record.name();
        match (flags.quiet, &record.reference) {
            (true, _) => writeln!(out, "{name}")?,
            (false, Some(_)) => writeln!(out, "Loaded image: {name}")?,
            (false, None) => writeln!(out, "Loaded image ID: {name}")?,
        }
    }
    Ok(0)
}

/// `carrack save`.
///
/// # Errors
/// An image is not there, or the output cannot be written; then no file is left.
pub fn save(engine: &Engine, flags: &SaveFlags) -> Result<u8> {
    let find = |name: &String| engine.store().find_image(name).map_err(EngineError::from);
    let images: Vec<_> = flags.images.iter().map(find).collect::<Result<_, _>>()?;
    let compression = match flags.compress {
        true => Compression::Gzip,
        false => Compression::None,
    };
    let form = match flags.format {
        SaveFormat::DockerArchive => SaveForm::Docker,
        SaveFormat::OciArchive => SaveForm::Oci,
        SaveFormat::OciDir | SaveFormat::DockerDir => {
            let Some(path) = &flags.output else {
                bail!("a directory is saved to what --output names");
            };
            save_directory(engine, flags, &images, path, compression)?;
            return Ok(0);
        }
    };
    let options = SaveOptions { form, compression };
    let path = flags.output.as_deref().filter(|p| *p != Path::new("-"));
    let Some(path) = path else {
        let stdout = std::io::stdout();
        if rustix::termios::isatty(&stdout) {
            bail!("this would write an archive to the terminal; name a file with -o");
        }
        save_stream(engine, &images, options, stdout.lock(), flags.quiet)?;
        return Ok(0);
    };
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        save_stream(engine, &images, options, file, flags.quiet)?;
        return Ok(0);
    }
    // Whoever sees the file sees it whole.
    let save = || -> Result<()> {
        let mut file = NewFile::create(path)?;
        save_stream(engine, &images, options, &mut file, flags.quiet)?;
        Ok(file.commit()?)
    };
    save().with_context(|| format!("cannot save to {}", path.display()))?;
    Ok(0)
}

fn save_stream(
    engine: &Engine,
    images: &[ImageRecord],
    options: SaveOptions,
    output: impl Write,
    quiet: bool,
) -> Result<()> {
    let store = engine.store();
    let layers: BTreeSet<_> = images.iter().flat_map(|image| &image.layers).collect();
    let sizes = layers.into_iter().map(|layer| store.layer_info(layer));
    let bytes = match options.compression {
        Compression::None => sizes.map(|info| Some(info.ok()?.archive)).sum(),
        _ => None,
    };
    let output = Counted::new(output, "Saving", bytes, quiet);
    let output = BufWriter::with_capacity(BUFFER_BYTES, output);
    let saved = store.save(images, options, output);
    Ok(saved.map_err(|e| EngineError::from(ImagesError::from(e)))?)
}

fn save_directory(
    engine: &Engine,
    flags: &SaveFlags,
    images: &[ImageRecord],
    path: &Path,
    compression: Compression,
) -> Result<()> {
    if flags.format == SaveFormat::OciDir {
        let saved = engine.store().save_layout(images, compression, path);
        return Ok(saved.map_err(|e| EngineError::from(ImagesError::from(e)))?);
    }
    let [image] = flags.images.as_slice() else {
        bail!("docker-dir holds one image");
    };
    let access = Access::open(AccessOptions::default())?;
    let place = Place::Dir(path.to_owned());
    let options = PushOptions {
        compression: Some(compression),
        ..PushOptions::default()
    };
    let progress = Progress::new(Direction::Save, ProgressMode::Auto, flags.quiet);
    engine.push(&access, image, Some(place), &options, &|event| {
        progress.tell(event);
    })?;
    Ok(())
}

/// `carrack import`.
///
/// # Errors
/// The tar file cannot be taken in, or a change is wrong.
pub fn import(engine: &Engine, flags: &ImportFlags) -> Result<u8> {
    let mut config = ContainerConfig::default();
    for change in &flags.change {
        apply(&mut config, change)?;
    }
    let input: Box<dyn Read> = match flags.file.as_path() {
        path if path == Path::new("-") => Box::new(std::io::stdin()),
        path => {
            let file = File::open(path);
            Box::new(file.with_context(|| format!("cannot open {}", path.display()))?)
        }
    };
    let from = flags.file.display();
    let options = ImportOptions {
        name: flags.name.clone(),
        config,
        platform: flags.platform.clone(),
        created: Some(time::format(time::now())),
        comment: Some(
            flags
                .message
                .clone()
                .unwrap_or(format!("imported from {from}")),
        ),
    };
    let imported = engine.store().import(input, options, &|_| {});
    let record = imported.map_err(EngineError::from)?;
    writeln!(std::io::stdout(), "{}", record.id)?;
    Ok(0)
}

/// One instruction, as a Dockerfile has it.
fn apply(config: &mut ContainerConfig, change: &str) -> Result<()> {
    let Some((word, rest)) = change.trim().split_once([' ', '=']) else {
        bail!("the change {change:?} has no value");
    };
    let rest = rest.trim();
    let words = || -> Result<Vec<String>> {
        match rest.starts_with('[') {
            true => serde_json::from_str(rest).with_context(|| format!("the list {rest:?}")),
            false => Ok(vec!["/bin/sh".into(), "-c".into(), rest.into()]),
        }
    };
    let pair = || -> Result<(String, String)> {
        let pair = rest.split_once('=').or_else(|| rest.split_once(' '));
        let Some((key, value)) = pair else {
            bail!("{word} needs KEY=VALUE, not {rest:?}");
        };
        Ok((key.to_owned(), value.trim_matches('"').to_owned()))
    };
    let empty = || serde_json::json!({});
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = words()?,
        "ENTRYPOINT" => config.entrypoint = words()?,
        "ENV" => {
            let (key, value) = pair()?;
            config.env.retain(|e| e.split('=').next() != Some(&key));
            config.env.push(format!("{key}={value}"));
        }
        "LABEL" => {
            let (key, value) = pair()?;
            config.labels.insert(key, value);
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = match port.contains('/') {
                    true => port.to_owned(),
                    false => format!("{port}/tcp"),
                };
                config.exposed_ports.insert(port, empty());
            }
        }
        "VOLUME" => {
            let paths: Vec<String> = match rest.starts_with('[') {
                true => words()?,
                false => rest.split_whitespace().map(str::to_owned).collect(),
            };
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, empty())));
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => rest.clone_into(&mut config.working_dir),
        "STOPSIGNAL" => rest.clone_into(&mut config.stop_signal),
        _ => bail!(
            "no instruction {word:?}; there are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_a_dockerfiles_instructions() {
        let mut config = ContainerConfig::default();
        for change in [
            r#"CMD ["sh", "-l"]"#,
            "entrypoint run it",
            "ENV A=1",
            "ENV A=2",
            "LABEL k=\"v w\"",
            "EXPOSE 80 53/udp",
            "USER app",
            "VOLUME /data",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd, ["sh", "-l"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["A=2"]);
        assert_eq!(config.labels["k"], "v w");
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert!(config.volumes.contains_key("/data"));
        for bad in ["CMD", "FROM x", "ENV A", "CMD [x"] {
            assert!(apply(&mut config, bad).is_err(), "{bad}");
        }
    }
}
