//! `image inspect`, in the shape that users of docker and podman know.

use crate::image_args::InspectFlags;
use crate::template::Template;
use anyhow::Result;
use carrack_engine::{Engine, EngineError, ImageRecord};
use carrack_spec::Reference;
use serde_json::{Value, json};
use std::io::Write;

/// `carrack image inspect`.
///
/// # Errors
/// A format is wrong; images that are not there are told, and the code is 1.
pub fn inspect(engine: &Engine, flags: &InspectFlags) -> Result<u8> {
    let template = flags.format.as_deref().map(Template::parse).transpose()?;
    let records = engine.store().images().map_err(EngineError::from)?;
    let mut found = Vec::new();
    let mut code = 0;
    for name in &flags.images {
        match one(engine, name, &records) {
            Ok(value) => found.push(value),
            Err(error) => {
                eprintln!("carrack: {}", crate::sentence(&error.into()));
                code = 1;
            }
        }
    }
    match template {
        Some(template) => template.print(&found)?,
        None => writeln!(
            std::io::stdout(),
            "{}",
            serde_json::to_string_pretty(&found)?
        )?,
    }
    Ok(code)
}

fn one(engine: &Engine, name: &str, records: &[ImageRecord]) -> Result<Value, EngineError> {
    let store = engine.store();
    let record = store.find_image(name)?;
    let config = store.image_config(&record)?;
    let manifest = store.image_manifest(&record)?;
    let mut tags = Vec::new();
    let mut digests = std::collections::BTreeSet::new();
    for other in records.iter().filter(|other| other.id == record.id) {
        let Some(Ok(name)) = other.reference.as_ref().map(|r| r.parse::<Reference>()) else {
            continue;
        };
        tags.extend(
            name.tag()
                .map(|tag| format!("{}:{tag}", name.familiar_name())),
        );
        digests.insert(format!("{}@{}", name.familiar_name(), other.target.digest));
        digests.insert(format!("{}@{}", name.familiar_name(), other.manifest));
    }
    tags.sort();
    let comment = config.history.last().and_then(|h| h.comment.clone());
    let mount = engine
        .mounts()?
        .into_iter()
        .find(|(id, _)| *id == record.id);
    Ok(json!({
        "Id": record.id.to_string(),
        "Digest": record.target.digest.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment.unwrap_or_default(),
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "Size": record.size,
        "VirtualSize": record.size,
        "GraphDriver": {
            "Name": store.driver().name(),
            "Data": { "MountPoint": mount.map(|(_, path)| path) },
        },
        "RootFS": { "Type": "layers", "Layers": record.layers },
        "Metadata": { "LastTagTime": crate::time::format(record.loaded) },
        "Labels": config.config.labels,
        "Annotations": manifest.annotations,
        "ManifestType": manifest.media_type,
        "ManifestDigest": record.manifest.to_string(),
        "User": config.config.user,
        "History": config.history,
        "NamesHistory": [],
    }))
}
