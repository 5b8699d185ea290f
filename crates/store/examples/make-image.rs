//! Makes an image out of files of this machine, without any registry.
//!
//! ```text
//! make-image OUTPUT NAME [--docker] [--cmd WORDS] [--env NAME=VALUE] [--layer] ENTRY...
//!   ENTRY   HOST_FILE=PATH    a file, with the host file's permission bits
//!           @TARGET=PATH      a symbolic link to TARGET
//!           +MODE=PATH        a directory with an octal mode
//!           %TEXT=PATH        a file with this text and a line feed
//!   --layer starts the next layer
//! ```

use carrack_spec::Reference;
use carrack_spec::image::ContainerConfig;
use carrack_store::tar::{Entry, Kind, Writer};
use carrack_store::{Compression, ImageWriter};
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: make-image OUTPUT NAME [--docker] [--cmd WORDS] [--env NAME=VALUE] [--layer] ENTRY...";
    let (output, name) = (args.next().ok_or(usage)?, args.next().ok_or(usage)?);
    let name: Reference = name.parse()?;
    let (mut docker, mut config) = (false, ContainerConfig::default());
    let mut layers = vec![Writer::new(Vec::new())];
    while let Some(arg) = args.next() {
        let layer = layers.last_mut().ok_or(usage)?;
        match arg.as_str() {
            "--docker" => docker = true,
            "--layer" => layers.push(Writer::new(Vec::new())),
            "--env" => config.env.push(args.next().ok_or(usage)?),
            "--cmd" => {
                let words = args.next().ok_or(usage)?;
                config.cmd = words.split_whitespace().map(str::to_owned).collect();
            }
            entry => {
                let (what, path) = entry.rsplit_once('=').ok_or(usage)?;
                add(layer, what, path)?;
            }
        }
    }
    let mut image = ImageWriter::new(config);
    for layer in layers {
        image.layer(layer.finish()?, Compression::Gzip)?;
    }
    let file = File::create(output)?;
    match docker {
        true => image.write_docker(Some(&name), file)?,
        false => image.write_layout(Some(&name), file)?,
    };
    Ok(())
}

fn add(layer: &mut Writer<Vec<u8>>, what: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let path = path.trim_start_matches('/');
    if let Some(target) = what.strip_prefix('@') {
        let entry = Entry {
            link: target.into(),
            ..Entry::new(Kind::Symlink, path)
        };
        layer.append(&entry, &mut std::io::empty())?;
    } else if let Some(mode) = what.strip_prefix('+') {
        let entry = Entry {
            mode: u32::from_str_radix(mode, 8)?,
            ..Entry::new(Kind::Directory, path)
        };
        layer.append(&entry, &mut std::io::empty())?;
    } else if let Some(text) = what.strip_prefix('%') {
        let text = format!("{text}\n");
        let entry = Entry {
            size: text.len() as u64,
            ..Entry::new(Kind::Regular, path)
        };
        layer.append(&entry, &mut text.as_bytes())?;
    } else {
        let mut file = File::open(what).map_err(|e| format!("{what}: {e}"))?;
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        let entry = Entry {
            size: metadata.len(),
            mode,
            ..Entry::new(Kind::Regular, path)
        };
        layer.append(&entry, &mut file)?;
    }
    Ok(())
}
