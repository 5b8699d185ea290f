//! `carrack image`: everything about images.

pub mod transfer;

use crate::image_args::ImageVerb;
use carrack_engine::Engine;

/// `carrack image VERB`.
///
/// # Errors
/// The verb's.
pub fn image(engine: &Engine, verb: &ImageVerb) -> anyhow::Result<u8> {
    match verb {
        ImageVerb::Pull(flags) => transfer::pull(engine, flags),
        ImageVerb::Push(flags) => transfer::push(engine, flags),
        ImageVerb::Copy(flags) => transfer::copy(engine, flags),
    }
}
