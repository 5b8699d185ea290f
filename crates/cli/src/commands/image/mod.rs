//! `carrack image`: everything about images.

pub mod archive;
pub mod change;
pub mod inspect;
pub mod list;
pub mod mount;
pub mod show;
pub mod transfer;

use crate::image_args::ImageVerb;
use carrack_engine::Engine;

/// `carrack image VERB`.
///
/// # Errors
/// The verb's.
pub fn image(engine: &Engine, verb: &ImageVerb) -> anyhow::Result<u8> {
    match verb {
        ImageVerb::Ls(flags) => list::list(engine, flags),
        ImageVerb::Inspect(flags) => inspect::inspect(engine, flags),
        ImageVerb::History(flags) => show::history(engine, flags),
        ImageVerb::Tree(flags) => show::tree(engine, flags),
        ImageVerb::Diff(flags) => show::diff(engine, flags),
        ImageVerb::Tag(flags) => change::tag(engine, flags),
        ImageVerb::Untag(flags) => change::untag(engine, flags),
        ImageVerb::Rm(flags) => change::remove(engine, flags),
        ImageVerb::Prune(flags) => change::prune(engine, flags),
        ImageVerb::Load(flags) => archive::load(engine, flags),
        ImageVerb::Save(flags) => archive::save(engine, flags),
        ImageVerb::Import(flags) => archive::import(engine, flags),
        ImageVerb::Mount(flags) => mount::mount(engine, flags),
        ImageVerb::Unmount(flags) => mount::unmount(engine, flags),
        ImageVerb::Tags(flags) => super::search::tags(flags),
        ImageVerb::Pull(flags) => transfer::pull(engine, flags),
        ImageVerb::Push(flags) => transfer::push(engine, flags),
        ImageVerb::Copy(flags) => transfer::copy(engine, flags),
    }
}
