//! `carrack manifest`: lists of images for several machines.

use crate::commands::image::transfer::report_pushed;
use crate::manifest_args::{
    AddFlags, AnnotateFlags, CreateFlags, ListsFlags, ManifestInspectFlags, ManifestPushFlags,
    ManifestVerb, RmListsFlags,
};
use crate::progress::Direction;
use crate::template::Template;
use crate::{json, table};
use anyhow::Result;
use carrack_engine::images::{Access, ImageList, Place};
use carrack_engine::{Engine, EngineError, ImageError};
use serde_json::json;
use std::io::Write;

/// Exit code of `exists` for no.
const CODE_NO: u8 = 1;
/// How much of an id a table shows.
const ID_SHOWN: usize = 12;

/// `carrack manifest VERB`.
///
/// # Errors
/// The verb's.
pub fn manifest(engine: &Engine, verb: &ManifestVerb) -> Result<u8> {
    match verb {
        ManifestVerb::Create(flags) => create(engine, flags),
        ManifestVerb::Add(flags) => add(engine, flags),
        ManifestVerb::Annotate(flags) => annotate(engine, flags),
        ManifestVerb::Remove(flags) => {
            let list = engine.remove_member(&flags.list, &flags.image)?;
            told(&list)
        }
        ManifestVerb::Push(flags) => push(engine, flags),
        ManifestVerb::Inspect(flags) => inspect(engine, flags),
        ManifestVerb::Exists(flags) => match engine.store().find_list(&flags.list) {
            Ok(_) => Ok(0),
            Err(ImageError::NoList(_)) => Ok(CODE_NO),
            Err(error) => Err(EngineError::from(error).into()),
        },
        ManifestVerb::Ls(flags) => list(engine, flags),
        ManifestVerb::Rm(flags) => remove(engine, flags),
    }
}

/// The id, as podman prints it after each change.
fn told(list: &ImageList) -> Result<u8> {
    writeln!(std::io::stdout(), "{}", list.id())?;
    Ok(0)
}

fn create(engine: &Engine, flags: &CreateFlags) -> Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let how = (flags.all, flags.amend);
    told(&engine.create_list(&access, &flags.list, &flags.images, how)?)
}

fn add(engine: &Engine, flags: &AddFlags) -> Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let options = flags.machine.options();
    told(&engine.add_to_list(&access, &flags.list, &flags.images, flags.all, &options)?)
}

fn annotate(engine: &Engine, flags: &AnnotateFlags) -> Result<u8> {
    told(&match &flags.image {
        Some(image) => engine.annotate_member(&flags.list, image, &flags.machine.options())?,
        None => engine.annotate_list(&flags.list, &flags.machine.annotation)?,
    })
}

fn push(engine: &Engine, flags: &ManifestPushFlags) -> Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let place: Option<Place> = flags.destination.as_deref().map(str::parse).transpose()?;
    let progress = flags.send.tell.progress(Direction::Out);
    let options = flags.send.options(flags.all);
    let tell = |event| progress.tell(event);
    let pushed = engine.push_list(&access, &flags.list, place, &options, &tell)?;
    drop(progress);
    report_pushed(&pushed, &flags.send)?;
    if flags.purge {
        engine
            .store()
            .remove_list(&flags.list)
            .map_err(EngineError::from)?;
    }
    Ok(0)
}

fn inspect(engine: &Engine, flags: &ManifestInspectFlags) -> Result<u8> {
    let access = Access::open(flags.access.options()?)?;
    let document = engine.inspect_manifest(&access, &flags.name)?;
    let text = String::from_utf8_lossy(document.bytes());
    writeln!(std::io::stdout(), "{}", json::indented(&text))?;
    Ok(0)
}

fn list(engine: &Engine, flags: &ListsFlags) -> Result<u8> {
    let lists = engine.store().lists().map_err(EngineError::from)?;
    let mut out = std::io::stdout();
    if flags.quiet {
        for list in &lists {
            writeln!(out, "{}", list.id())?;
        }
        return Ok(0);
    }
    if let Some(format) = &flags.format {
        let rows: Vec<_> = lists
            .iter()
            .map(|list| {
                json!({
                    "Name": list.name(),
                    "ID": list.id(),
                    "Platforms": platforms(list),
                    "Changed": crate::time::format(list.changed),
                })
            })
            .collect();
        Template::parse(format)?.print(&rows)?;
        return Ok(0);
    }
    let rows: Vec<_> = lists
        .iter()
        .map(|list| {
            vec![
                list.name(),
                list.id().chars().take(ID_SHOWN).collect(),
                platforms(list),
                table::ago(list.changed),
            ]
        })
        .collect();
    table::print(&["NAME", "ID", "PLATFORMS", "CHANGED"], &rows);
    Ok(0)
}

fn platforms(list: &ImageList) -> String {
    let named = |member: &carrack_engine::images::ListMember| match &member.descriptor.platform {
        Some(platform) => platform.to_string(),
        None => "unknown".to_owned(),
    };
    list.members.iter().map(named).collect::<Vec<_>>().join(",")
}

fn remove(engine: &Engine, flags: &RmListsFlags) -> Result<u8> {
    let mut code = 0;
    for name in &flags.lists {
        match engine.store().remove_list(name) {
            Ok((list, _)) => {
                let (name, id) = (list.name(), list.id());
                writeln!(std::io::stdout(), "Untagged: {name}\nDeleted: {id}")?;
            }
            Err(ImageError::NoList(_)) if flags.ignore => {}
            Err(error) => {
                eprintln!(
                    "carrack: {}",
                    crate::sentence(&EngineError::from(error).into())
                );
                code = 1;
            }
        }
    }
    Ok(code)
}
